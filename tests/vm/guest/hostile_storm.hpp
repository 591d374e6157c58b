// SPDX-License-Identifier: Apache-2.0
// What the processes and threads of the storm share: counts, files of the driver that some own
// disks by, and how a finding is reported. Owns: nothing; Storm lies in memory that all processes
// have. Failure: finding() prints and ends the process; the others see `failed`.
#ifndef HERALD_TESTS_VM_GUEST_HOSTILE_STORM_HPP
#define HERALD_TESTS_VM_GUEST_HOSTILE_STORM_HPP

#include <array>
#include <atomic>

#include "hostile_answers.hpp"

constexpr std::size_t kErrors = 140;

// Ways through the driver that a call's success alone does not tell.
enum Path : unsigned {
    kTagLanded,
    kTagDowngraded,
    kTagRefused,
    kHoldLanded,
    kHoldRefused,
    kHoldReleased,
    kScanned,
    kGapClosed,
    kCookieRead,
    kCookieWritten,
    kMapCopied,
    kMapAsked,
    kPolledReady,
    kPolledGone,
    kModeMap,
    kModeExtents,
    kModeOrdered,
    kPaths,
};
constexpr std::array<const char*, kPaths> kPathNames = {
    "tag-landed",    "tag-downgraded", "tag-refused",    "hold-landed", "hold-refused",
    "hold-released", "ack-scanned",    "ack-gap-closed", "cookie-read", "cookie-write",
    "map-copied",    "map-asked",      "polled-ready",   "polled-gone", "mode-map",
    "mode-extents",  "mode-ordered",
};

struct Storm {
    struct Count {
        std::atomic<std::uint64_t> tried, succeeded, spoiled;
        std::array<std::atomic<std::uint64_t>, kErrors> errors;
    };
    std::array<Count, kCalls> calls;
    std::array<std::atomic<std::uint64_t>, kPaths> paths;
    std::atomic<std::uint64_t> total, maps, refused_maps, without_capability;
    std::atomic<bool> failed, stop;
};

// One open file of the driver. `disk` is what it owns, by major << 32 | minor, as far as is known.
struct File {
    std::atomic<int> number{-1};
    std::atomic<std::uint64_t> disk{0};
    // Its disk went; nothing comes of it any more.
    std::atomic<bool> gone{false};
    // By all processes: never closed.
    bool is_shared = false;
};

inline std::uint64_t packed(herald_cbt_disk_abi disk) {
    return std::uint64_t{disk.major} << 32 | disk.minor;
}

[[noreturn, gnu::format(printf, 2, 3)]] inline void finding(Storm& storm, const char* format, ...) {
    storm.failed = true;
    storm.stop = true;
    std::va_list words;
    va_start(words, format);
    std::fputs("FOUND: ", stderr);
    std::vfprintf(stderr, format, words);
    va_end(words);
    std::fputc('\n', stderr);
    _exit(1);
}

// What an owner sees of its disk. `is_owner` false: the file has none.
struct Sight {
    bool is_owner = false;
    herald_cbt_header_abi header{};
    std::uint64_t final_to = 0;  // slots from tail before it are final
};

inline Sight look_by(Storm& storm, int file) {
    Sight sight;
    void* header = mmap(nullptr, kPage, PROT_READ, MAP_SHARED, file, HERALD_CBT_MMAP_HEADER);
    if (header == MAP_FAILED) return sight;
    const auto* live = static_cast<const herald_cbt_header_abi*>(header);
    sight.header = *live;
    if (const char* wrong = hostile::check_header(sight.header))
        finding(storm, "header: not so: %s", wrong);
    const std::uint64_t slots = sight.header.slots;
    const std::uint64_t tail = __atomic_load_n(&live->tail, __ATOMIC_ACQUIRE);
    const std::uint64_t head = __atomic_load_n(&live->head, __ATOMIC_ACQUIRE);
    sight.header.tail = sight.final_to = tail;
    sight.header.head = head;
    if (slots != 0) {
        void* area = mmap(nullptr, slots * sizeof(herald_cbt_slot_abi), PROT_READ, MAP_SHARED, file,
                          static_cast<off_t>(HERALD_CBT_MMAP_SLOTS));
        // The file is another one by now.
        if (area == MAP_FAILED) {
            munmap(header, kPage);
            return {};
        }
        const auto* ring = static_cast<const herald_cbt_slot_abi*>(area);
        bool final = true;
        for (std::uint64_t number = tail; number < head && number < tail + 64; ++number) {
            const herald_cbt_slot_abi slot = ring[number & (slots - 1)];
            __atomic_thread_fence(__ATOMIC_ACQUIRE);
            // Another thread of this file may have released it meanwhile.
            if (__atomic_load_n(&live->tail, __ATOMIC_ACQUIRE) > number) continue;
            if (const char* wrong = hostile::check_slot(slot, number, HERALD_CBT_DISK_SECTORS_MAX))
                finding(storm, "slot %llu: not so: %s", static_cast<unsigned long long>(number),
                        wrong);
            final &= slot.state != HERALD_CBT_RESERVED;
            if (final) sight.final_to = number + 1;
        }
        munmap(area, slots * sizeof(herald_cbt_slot_abi));
    }
    munmap(header, kPage);
    sight.is_owner = true;
    return sight;
}

// Maps header and slots, copies the first, and looks at some of the others. By a descriptor of its
// own: another thread may close `number` in between, and open another disk's file by it.
inline Sight look(Storm& storm, int number) {
    const int file = fcntl(number, F_DUPFD_CLOEXEC, 0);
    if (file < 0) return {};
    const Sight sight = look_by(storm, file);
    close(file);
    return sight;
}

#endif
