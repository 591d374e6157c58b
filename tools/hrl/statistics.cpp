// SPDX-License-Identifier: Apache-2.0
#include "tools/hrl/statistics.h"

#include <lz4.h>

#include <algorithm>
#include <bit>

#include "herald/limits.h"

namespace herald::hrl_tool {

namespace {

constexpr size_t kSecondsMax = 4096;
constexpr size_t kRegionsMax = 65536;
constexpr uint64_t kRegionBytes = 1 << 20;

}  // namespace

void CoarseningCounter::add(uint64_t key, uint64_t bytes) {
    Count& count = counts_[key / unit_];
    count.writes += 1;
    count.bytes += bytes;
    while (counts_.size() > max_) {
        unit_ *= 2;
        std::map<uint64_t, Count> coarser;
        for (const auto& [at, fine] : counts_) {
            coarser[at / 2].writes += fine.writes;
            coarser[at / 2].bytes += fine.bytes;
        }
        counts_ = std::move(coarser);
    }
}

Statistics::Statistics()
    : by_second(1, kSecondsMax),
      by_region(kRegionBytes, kRegionsMax),
      packed_(size_t(LZ4_compressBound(int(HERALD_RECORD_DATA_BYTES_MAX)))) {}

void Statistics::add(const hrl::Record& record) {
    Kind& kind = kinds[unsigned(record.kind) % kKinds];
    kind.records += 1;
    if (record.kind != hrl::RecordKind::resize) kind.bytes += record.length;
    first_time_ns = std::min(first_time_ns, record.time_ns);
    last_time_ns = std::max(last_time_ns, record.time_ns);
    if (record.kind != hrl::RecordKind::write) return;

    Kind& size = sizes[size_t(std::bit_width((record.length - 1) / HERALD_SECTOR_BYTES))];
    size.records += 1;
    size.bytes += record.length;
    by_second.add(record.time_ns / 1'000'000'000, record.length);
    by_region.add(record.offset, record.length);
    written_bytes += record.length;
    if (record.data_is_sealed) return;
    readable_bytes += record.length;
    if (all_zero(record.data)) zero_bytes += record.length;
    const int packed =
        LZ4_compress_default(reinterpret_cast<const char*>(record.data.data()), packed_.data(),
                             int(record.data.size()), int(packed_.size()));
    // What does not get smaller is stored as it is.
    const uint64_t stored = packed <= 0 ? record.length : std::min(uint64_t(packed), record.length);
    packed_bytes += stored;
    dense_writes += stored > record.length - record.length / 16;
}

}  // namespace herald::hrl_tool
