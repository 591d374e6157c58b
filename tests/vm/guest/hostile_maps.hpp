// SPDX-License-Identifier: Apache-2.0
// Mappings of the driver's file, of every offset, length, protection and kind, and what may be done
// to those that there are. Promise: a page that can be written, executed or seen past the end of
// its area is a finding.
#ifndef HERALD_TESTS_VM_GUEST_HOSTILE_MAPS_HPP
#define HERALD_TESTS_VM_GUEST_HOSTILE_MAPS_HPP

#include <sys/uio.h>
#include <sys/wait.h>

#include "hostile_storm.hpp"

class Maps {
  public:
    // `disk`: a device to read from past the page cache.
    Maps(Storm& storm, const char* disk)
        : storm_(storm),
          disk_(open(disk, O_RDONLY | O_DIRECT | O_CLOEXEC)),
          memory_(open("/proc/self/mem", O_RDWR | O_CLOEXEC)),
          zeroes_(open("/dev/zero", O_RDONLY | O_CLOEXEC)) {
        if (disk_ < 0 || memory_ < 0 || zeroes_ < 0) fail("%s: %s", disk, std::strerror(errno));
    }

    void one(Random& random, File& file) {
        constexpr std::uint64_t kOffsets[] = {HERALD_CBT_MMAP_HEADER, HERALD_CBT_MMAP_SLOTS,
                                              HERALD_CBT_MMAP_PAYLOAD};
        std::uint64_t offset = kOffsets[random() % std::size(kOffsets)];
        if (one_in(random, 6)) offset = (offset ^ (kPage << random() % 44)) & ~(1ull << 63);
        const bool known =
            std::find(std::begin(kOffsets), std::end(kOffsets), offset) != std::end(kOffsets);
        const int number = file.number.load();
        const Sight sight = look(storm_, number);
        const std::size_t area = area_of(sight.header, offset);
        const std::size_t bytes = a_length(random, area);
        constexpr int kProtections[] = {PROT_READ,
                                        PROT_READ,
                                        PROT_READ,
                                        PROT_NONE,
                                        PROT_READ | PROT_WRITE,
                                        PROT_WRITE,
                                        PROT_EXEC,
                                        PROT_READ | PROT_EXEC};
        const int protection = kProtections[random() % std::size(kProtections)];
        constexpr int kKinds[] = {
            MAP_SHARED,         MAP_SHARED, MAP_SHARED, MAP_PRIVATE, MAP_SHARED | MAP_POPULATE,
            MAP_SHARED_VALIDATE};
        const int kind = kKinds[random() % std::size(kKinds)];
        ++storm_.maps;
        void* at = mmap(nullptr, bytes, protection, kind, number, static_cast<off_t>(offset));
        if (at == MAP_FAILED) {
            ++storm_.refused_maps;
            return;
        }
        if (!known || bytes == 0 || (protection & (PROT_WRITE | PROT_EXEC)) != 0 ||
            kind == MAP_PRIVATE)
            finding(storm_, "mapped: offset %llx, %zu bytes, protection %x, kind %x",
                    static_cast<unsigned long long>(offset), bytes, protection, kind);
        // It has got an owner meanwhile, or another one in its place.
        const std::size_t area_now = area_of(look(storm_, number).header, offset);
        if (sight.is_owner && area == area_now && bytes > round_up(area))
            finding(storm_, "mapped %zu bytes of an area of %zu", bytes, area);
        Mapping mapping{static_cast<std::uint8_t*>(at), round_up(bytes), protection != PROT_NONE};
        for (std::uint64_t count = random() % 6; count > 0 && mapping.bytes != 0; --count)
            torment(random, mapping, file);
        if (mapping.bytes != 0) munmap(mapping.at, mapping.bytes);
    }

  private:
    struct Mapping {
        std::uint8_t* at;
        std::size_t bytes;
        bool readable;
    };

    static std::size_t round_up(std::size_t bytes) { return (bytes + kPage - 1) & ~(kPage - 1); }
    static std::size_t area_of(const herald_cbt_header_abi& header, std::uint64_t offset) {
        if (offset == HERALD_CBT_MMAP_HEADER) return kPage;
        return offset == HERALD_CBT_MMAP_SLOTS ? header.slots * sizeof(herald_cbt_slot_abi)
                                               : header.payload_bytes;
    }
    static std::size_t a_length(Random& random, std::size_t area) {
        switch (random() % 8) {
            case 0:
                return random() % 3;
            case 1:
                return area + kPage * (1 + random() % 3);
            case 2:
                return std::size_t{1} << random() % 40;
            case 3:
                return area != 0 ? 1 + random() % area : 1;
            default:
                return area;
        }
    }

    // Through the kernel, which says EFAULT where a load would be a signal: as if it were a path.
    static bool can_read(const std::uint8_t* at) {
        return access(reinterpret_cast<const char*>(at), F_OK) == 0 || errno != EFAULT;
    }

    void torment(Random& random, Mapping& mapping, File& file) {
        std::uint8_t* page = mapping.at + random() % (mapping.bytes / kPage) * kPage;
        switch (random() % 12) {
            case 0:
                if (mprotect(page, kPage, PROT_READ | PROT_WRITE) == 0)
                    finding(storm_, "mprotect: a page that can be written");
                return;
            case 1:
                if (mprotect(page, kPage, PROT_READ | PROT_EXEC) == 0)
                    finding(storm_, "mprotect: a page that can be executed");
                return;
            case 2:
                if (mremap(mapping.at, mapping.bytes, mapping.bytes + kPage, MREMAP_MAYMOVE) !=
                    MAP_FAILED)
                    finding(storm_, "mremap: a mapping that grew");
                return;
            case 3:
                move(random, mapping);
                return;
            case 4:
                if (mapping.readable && !can_read(page))
                    finding(storm_, "a page that cannot be read");
                return;
            case 5: {
                constexpr int kAdvice[] = {MADV_NORMAL,
                                           MADV_WILLNEED,
                                           MADV_DONTNEED,
                                           MADV_FREE,
                                           MADV_REMOVE,
                                           MADV_MERGEABLE,
                                           MADV_HUGEPAGE,
                                           MADV_WIPEONFORK,
                                           MADV_COLD,
                                           MADV_PAGEOUT,
                                           22,
                                           23,
                                           24,
                                           25};
                madvise(page, kPage, kAdvice[random() % std::size(kAdvice)]);
                // It may be gone by now; that is for those below to bear.
                mapping.readable = false;
                can_read(page);
                return;
            }
            case 6:
                fork_and_read(mapping);
                return;
            case 7:
                // The mapping stays.
                if (file.is_shared) return;
                if (const int number = file.number.exchange(-1); number >= 0) close(number);
                file.disk = 0;
                if (mapping.readable && !can_read(page))
                    finding(storm_, "a page that went with its file");
                return;
            default:
                write_into(random, page);
                return;
        }
    }

    void move(Random& random, Mapping& mapping) {
        // The rest is unmapped by it.
        const std::size_t bytes = (1 + random() % (mapping.bytes / kPage)) * kPage;
        void* moved = mremap(mapping.at, mapping.bytes, bytes, MREMAP_MAYMOVE);
        if (moved == MAP_FAILED) finding(storm_, "mremap: cannot shrink: %s", std::strerror(errno));
        mapping.at = static_cast<std::uint8_t*>(moved);
        mapping.bytes = bytes;
        void* place = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (place == MAP_FAILED) return;
        moved = mremap(mapping.at, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, place);
        if (moved == MAP_FAILED)
            munmap(place, bytes);
        else
            mapping.at = static_cast<std::uint8_t*>(moved);
    }

    void fork_and_read(const Mapping& mapping) {
        const pid_t child = fork();
        if (child == 0) {
            for (std::size_t at = 0; at < std::min(mapping.bytes, 16 * kPage); at += kPage)
                if (mapping.readable && !can_read(mapping.at + at)) _exit(1);
            _exit(mprotect(mapping.at, kPage, PROT_READ | PROT_WRITE) == 0 ? 2 : 0);
        }
        int status = 0;
        if (child > 0 && waitpid(child, &status, 0) == child && status != 0)
            finding(storm_, "a child that has the mapping ended with %x", status);
    }

    // By every way past the protection of pages.
    void write_into(Random& random, std::uint8_t* page) {
        std::uint8_t byte = 0x77;
        const iovec here{&byte, 1};
        const iovec there{page, 1};
        switch (random() % 4) {
            case 0:
                if (pwrite(memory_, &byte, 1, reinterpret_cast<off_t>(page)) > 0)
                    finding(storm_, "written through /proc/self/mem");
                return;
            case 1:
                if (process_vm_writev(getpid(), &here, 1, &there, 1, 0) > 0)
                    finding(storm_, "written through process_vm_writev");
                return;
            case 2:
                if (read(zeroes_, page, 16) > 0) finding(storm_, "written by a read into it");
                return;
            default:
                if (pread(disk_, page, kPage, 0) > 0)
                    finding(storm_, "written by a disk's read into it");
                return;
        }
    }

    Storm& storm_;
    int disk_;
    int memory_;
    int zeroes_;
};

#endif
