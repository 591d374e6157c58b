// SPDX-License-Identifier: Apache-2.0
// Statistics of a journal: sizes, churn, hot regions, compressibility.
// Promise: memory is bounded whatever the journal: counters by time and by region become coarser
// when there are too many of them.
#pragma once

#include <map>
#include <vector>

#include "user/hrl/record.h"

namespace herald::hrl_tool {

// Bytes and writes counted by key / unit; the unit doubles when there are too many keys.
class CoarseningCounter {
  public:
    struct Count {
        uint64_t writes = 0;
        uint64_t bytes = 0;
    };
    CoarseningCounter(uint64_t unit, size_t counters_max) : unit_(unit), max_(counters_max) {}
    void add(uint64_t key, uint64_t bytes);
    uint64_t unit() const { return unit_; }
    const std::map<uint64_t, Count>& counts() const { return counts_; }  // by key / unit

  private:
    uint64_t unit_;
    size_t max_;
    std::map<uint64_t, Count> counts_;
};

class Statistics {
  public:
    struct Kind {
        uint64_t records = 0;
        uint64_t bytes = 0;  // of their ranges
    };
    Statistics();
    void add(const hrl::Record& record);

    static constexpr size_t kKinds = 16;
    static constexpr size_t kSizes = 12;  // 512 bytes to 1 MiB, by powers of two
    Kind kinds[kKinds];                   // by RecordKind
    Kind sizes[kSizes];                   // of writes: size i is up to 512 << i
    CoarseningCounter by_second;
    CoarseningCounter by_region;
    uint64_t written_bytes = 0;
    uint64_t readable_bytes = 0;  // of writes whose data is not sealed
    uint64_t packed_bytes = 0;    // the same by LZ4, write by write
    uint64_t zero_bytes = 0;      // of writes that are nothing but zeroes
    uint64_t dense_writes = 0;    // LZ4 saves less than a sixteenth
    uint64_t first_time_ns = UINT64_MAX;
    uint64_t last_time_ns = 0;

  private:
    std::vector<char> packed_;
};

}  // namespace herald::hrl_tool
