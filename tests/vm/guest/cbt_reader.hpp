// SPDX-License-Identifier: Apache-2.0
// Reader owns one disk of the driver and reads its ring: the least that a reader must do, for
// tests. Promise: slots are handed out in order, each once, after their state is final. Callers:
// one thread for each Reader; tag() and cut() are static and may run on another. Failure: prints
// what failed and ends the program with status 1.
#ifndef HERALD_TESTS_VM_GUEST_CBT_READER_HPP
#define HERALD_TESTS_VM_GUEST_CBT_READER_HPP

#include <herald/abi/cbt.h>

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

[[noreturn, gnu::format(printf, 1, 2)]] inline void fail(const char* format, ...) {
    va_list words;
    va_start(words, format);
    std::vfprintf(stderr, format, words);
    va_end(words);
    std::fputc('\n', stderr);
    std::exit(1);
}

template <typename Argument>
int call(int file, unsigned long command, Argument& argument) {
    argument.size = sizeof(Argument);
    return ioctl(file, command, &argument);
}

inline int open_driver() {
    const int file = open("/dev/" HERALD_CBT_DEVICE, O_RDWR | O_CLOEXEC);
    if (file < 0) fail("/dev/" HERALD_CBT_DEVICE ": %s", std::strerror(errno));
    return file;
}

inline herald_cbt_disk_abi disk_of(const char* node) {
    struct stat facts {};
    if (stat(node, &facts) != 0 || !S_ISBLK(facts.st_mode))
        fail("%s is no block device: %s", node, std::strerror(errno));
    return {major(facts.st_rdev), minor(facts.st_rdev)};
}

class Reader {
  public:
    explicit Reader(const char* node) : disk_(disk_of(node)), file_(open_driver()) {
        own_.disk = disk_;
        if (call(file_, HERALD_CBT_OWN, own_) != 0) fail("own %s: %s", node, std::strerror(errno));
        next_ = released_ = own_.tail;
        header_ = static_cast<const herald_cbt_header_abi*>(map(HERALD_CBT_MMAP_HEADER, 4096));
        if (header_->magic != HERALD_CBT_HEADER_MAGIC || header_->version != HERALD_CBT_ABI_VERSION)
            fail("%s: not a header of this version", node);
        slots_ = static_cast<const herald_cbt_slot_abi*>(
            map(HERALD_CBT_MMAP_SLOTS, own_.slots * sizeof(herald_cbt_slot_abi)));
        if (own_.payload_bytes != 0)
            payload_ =
                static_cast<const std::uint8_t*>(map(HERALD_CBT_MMAP_PAYLOAD, own_.payload_bytes));
    }
    ~Reader() { close(file_); }
    Reader(const Reader&) = delete;
    Reader& operator=(const Reader&) = delete;

    // Calls take(slot, number, data) for each slot whose state is final, up to the first that is
    // not; data is null where the slot has none. Returns how many.
    template <typename Take>
    std::uint64_t drain(Take take) {
        const std::uint64_t began = next_;
        const std::uint64_t head = __atomic_load_n(&header_->head, __ATOMIC_ACQUIRE);
        for (; next_ < head; ++next_) {
            const herald_cbt_slot_abi& slot = slots_[next_ & (own_.slots - 1)];
            // Pairs with the driver's release store of a final state.
            if (__atomic_load_n(&slot.state, __ATOMIC_ACQUIRE) == HERALD_CBT_RESERVED) break;
            std::uint64_t number = 0;
            std::memcpy(&number, slot.id, sizeof number);
            if (slot.kind != HERALD_CBT_TAG && slot.kind != HERALD_CBT_ACTIVATION &&
                number != next_)
                fail("slot %llu says that it is slot %llu", static_cast<unsigned long long>(next_),
                     static_cast<unsigned long long>(number));
            const std::uint8_t* data = nullptr;
            if (slot.payload_bytes != 0)
                data = payload_ + (slot.payload & (own_.payload_bytes - 1));
            take(slot, next_, data);
        }
        return next_ - began;
    }

    // All that was drained may be overwritten.
    void release() {
        herald_cbt_release_abi release{};
        release.released = release.drained = next_;
        release.events = __atomic_load_n(&header_->events, __ATOMIC_ACQUIRE);
        if (call(file_, HERALD_CBT_RELEASE, release) != 0)
            fail("release up to %llu: %s", static_cast<unsigned long long>(next_),
                 std::strerror(errno));
        released_ = next_;
    }

    // All that was drained is stored; with `scanned`, that generation too.
    herald_cbt_ack_abi acknowledge(std::uint64_t scanned = 0, std::uint32_t flags = 0) {
        herald_cbt_ack_abi ack{};
        ack.received = ack.stored = next_;
        ack.scanned = scanned;
        ack.flags = flags | (scanned != 0 ? HERALD_CBT_ACK_SCANNED : 0);
        if (call(file_, HERALD_CBT_ACK, ack) != 0)
            fail("acknowledge %llu, generation %llu: %s", static_cast<unsigned long long>(next_),
                 static_cast<unsigned long long>(scanned), std::strerror(errno));
        return ack;
    }

    void wait(int milliseconds) const {
        pollfd one{file_, POLLIN | POLLPRI, 0};
        poll(&one, 1, milliseconds);
    }

    // Seals the current generation where that is possible now.
    bool seal() const {
        herald_cbt_seal_abi seal{};
        seal.disk = disk_;
        if (call(file_, HERALD_CBT_SEAL, seal) == 0) return true;
        if (errno != EAGAIN) fail("seal: %s", std::strerror(errno));
        return false;
    }

    // The numbers of the dirty blocks, of one bitmap.
    std::vector<std::uint64_t> dirty(std::uint32_t which) const {
        const std::uint64_t blocks =
            (header_->sectors + (1u << HERALD_CBT_BLOCK_SECTORS_SHIFT) - 1) >>
            HERALD_CBT_BLOCK_SECTORS_SHIFT;
        std::vector<std::uint8_t> bits((blocks + 63) / 64 * 8);
        herald_cbt_map_abi map{};
        map.disk = disk_;
        map.which = which;
        map.blocks = bits.size() * 8;
        map.buffer = reinterpret_cast<std::uint64_t>(bits.data());
        if (call(file_, HERALD_CBT_MAP, map) != 0) fail("map: %s", std::strerror(errno));
        std::vector<std::uint64_t> found;
        for (std::uint64_t block = 0; block < map.blocks; ++block)
            if ((bits[block / 8] >> (block % 8) & 1) != 0) found.push_back(block);
        return found;
    }

    [[nodiscard]] herald_cbt_stats_abi stats() const {
        herald_cbt_stats_abi stats{};
        stats.disk = disk_;
        if (call(file_, HERALD_CBT_STATS, stats) != 0) fail("stats: %s", std::strerror(errno));
        return stats;
    }

    [[nodiscard]] const herald_cbt_header_abi& header() const { return *header_; }
    [[nodiscard]] herald_cbt_disk_abi disk() const { return disk_; }
    [[nodiscard]] std::uint64_t next() const { return next_; }
    [[nodiscard]] std::uint64_t head() const {
        return __atomic_load_n(&header_->head, __ATOMIC_ACQUIRE);
    }

  private:
    const void* map(std::uint64_t offset, std::uint64_t bytes) const {
        void* area = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, file_, static_cast<off_t>(offset));
        if (area == MAP_FAILED)
            fail("mmap at %llx: %s", static_cast<unsigned long long>(offset), std::strerror(errno));
        return area;
    }

    herald_cbt_disk_abi disk_;
    int file_;
    herald_cbt_own_abi own_{};
    const herald_cbt_header_abi* header_ = nullptr;
    const herald_cbt_slot_abi* slots_ = nullptr;
    const std::uint8_t* payload_ = nullptr;
    std::uint64_t next_ = 0;
    std::uint64_t released_ = 0;
};

#endif
