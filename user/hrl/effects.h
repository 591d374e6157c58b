// SPDX-License-Identifier: Apache-2.0
// Effects: what a journal makes of a part of a disk, as ranges of zeroes and digests of sectors.
// compare_effects() tells where two journals leave a disk different.
// Promise: memory stays under HERALD_HRL_EFFECTS_COST_MAX units of 8 bytes for each journal: when
// a window of the disk turns out to hold more, it is cut, and the journals are read again for the
// rest. Discards and secure erases count as zeroes, which is what an image holds after them; so
// does what an image layer does not cover. Records must come by position. Two sectors count as
// equal when their XXH3-64 are. Callers: one thread. Failure: that of reading the journals.
#pragma once

#include <functional>
#include <map>
#include <vector>

#include "herald/limits.h"

#include "user/hrl/journal.h"

namespace herald::hrl {

class Effects {
  public:
    // Of bytes begin to end of the disk.
    Effects(uint64_t begin, uint64_t end, uint64_t cost_max)
        : begin_(begin), end_(end), cost_max_(cost_max) {}
    void begin_disk(uint64_t disk_bytes) { disk_bytes_ = disk_bytes; }
    void apply(const Record& record);
    void zero(uint64_t offset, uint64_t end);
    // Where the window ends: earlier than asked for when there was too much in it.
    uint64_t end() const { return end_; }
    void cut(uint64_t end);
    uint64_t disk_bytes() const { return disk_bytes_; }

    struct Extent {
        uint64_t end = 0;
        std::vector<uint64_t> digests;  // one for each sector; empty: all are zero
    };
    const std::map<uint64_t, Extent>& extents() const { return extents_; }  // by where they begin

  private:
    void set(uint64_t offset, uint64_t end, std::vector<uint64_t> digests);
    void clear(uint64_t offset, uint64_t end);
    void put(uint64_t offset, Extent extent);

    uint64_t begin_;
    uint64_t end_;
    uint64_t cost_max_;
    uint64_t cost_ = 0;
    uint64_t disk_bytes_ = 0;
    std::map<uint64_t, Extent> extents_;
};

enum class Difference : uint8_t { content = 1, only_first = 2, only_second = 3 };
const char* to_string(Difference difference);

struct DifferentRange {
    uint64_t offset = 0;
    uint64_t length = 0;
    Difference difference = Difference::content;
    bool operator==(const DifferentRange&) const = default;
};

struct ComparedEffects {
    uint64_t ranges = 0;
    uint64_t bytes = 0;
    uint64_t passes = 0;  // over both journals
    // The disk's size at the end; 0 when the format does not say it.
    uint64_t first_disk_bytes = 0;
    uint64_t second_disk_bytes = 0;
    bool same_size() const {
        return first_disk_bytes == 0 || second_disk_bytes == 0 ||
               first_disk_bytes == second_disk_bytes;
    }
};

using JournalOpener = std::function<Result<std::unique_ptr<Journal>>()>;

// Ranges are visited in ascending order; neighbours of one kind are one range.
Result<ComparedEffects> compare_effects(const JournalOpener& first, const JournalOpener& second,
                                        const std::function<void(const DifferentRange&)>& visit,
                                        uint64_t cost_max = HERALD_HRL_EFFECTS_COST_MAX);

}  // namespace herald::hrl
