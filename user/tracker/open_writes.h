// SPDX-License-Identifier: Apache-2.0
// OpenWrites: the table in which the BPF programs keep the writes that were handed to the driver
// and are not known to have completed.
// Promise: a write whose submission was seen is open here until its completion was marked; forget()
// closes only the very issue that was looked at.
// Callers: the reader thread; the programs change slots at any time.
// Layout: include/herald/abi/ebpf_tracker.h
#pragma once

#include <linux/types.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "herald/abi/ebpf_tracker.h"
#include "user/tracker/dirty_map.h"

namespace herald::tracker {

class OpenWrites {
  public:
    struct Entry {
        size_t slot = 0;
        uint64_t word = 0;  // as it was when looked at
        BlockRun run;
        // What it was submitted to, the disk or a partition, as the kernel keeps a dev_t; 0: not
        // known.
        uint64_t part = 0;
    };

    explicit OpenWrites(std::span<herald_open_write_abi> slots) : slots_(slots) {}

    std::vector<Entry> open() const;
    uint64_t count() const;
    // Closes the entry unless its request was issued or completed since.
    void forget(const Entry& entry);
    // Gives the slots of closed writes to whoever comes next: for a table full of requests that no
    // longer exist (another I/O scheduler was set). A program that opens a slot meanwhile sees that
    // and counts it. `between` is for tests: called between the steps.
    void release_closed(const std::function<void(size_t slot)>& between = {});

  private:
    std::span<herald_open_write_abi> slots_;
};

}  // namespace herald::tracker
