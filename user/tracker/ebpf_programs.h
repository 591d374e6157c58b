// SPDX-License-Identifier: Apache-2.0
// EbpfPrograms: the programs, links and maps of one disk, made new or found pinned.
// Promise: a directory of pins under its final name is complete: it is filled beside and renamed.
// Callers: EbpfTracker, holding the lock of the bpffs.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>

#include "user/base/result.h"
#include "user/tracker/bpf_object.h"

namespace herald::tracker {

// The kernel's numbers of what belongs together; never used again for another object until reboot
// in practice, and checked against each other besides.
struct EbpfIds {
    std::array<uint32_t, 2> links;     // issue, complete
    std::array<uint32_t, 2> programs;  // issue, complete
    uint32_t live_map;
    uint32_t open_writes_map;
};

struct EbpfShape {
    uint64_t dev = 0;  // user-space encoding
    uint64_t diskseq = 0;
    uint64_t blocks = 0;
    uint64_t open_slots = 0;  // a power of two
    bool leave_out_submissions = false;
    bool leave_out_open_writes = false;
    uint32_t drop_completions_percent = 0;
};

struct EbpfPrograms {
    std::array<Fd, 2> links;
    std::array<Fd, 2> programs;
    MappedMap live, todo, in_flight, open_writes, state;
    Fd counters;
    EbpfIds ids{};
};

// Loads and attaches; from here on writes are marked. Nothing is pinned yet.
Result<EbpfPrograms> load_programs(const EbpfShape& shape, uint64_t state_bytes);
// Pins all of it as files in `dir`, which must exist.
Result<void> pin_programs(const EbpfPrograms& programs, const std::filesystem::path& dir);
// Opens what is pinned in `dir`. A `resync` error says in a sentence what is missing or wrong.
Result<EbpfPrograms> open_programs(const std::filesystem::path& dir, uint64_t state_bytes);

}  // namespace herald::tracker
