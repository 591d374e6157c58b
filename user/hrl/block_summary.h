// SPDX-License-Identifier: Apache-2.0
// What the index says of a block, gathered record by record. Writer and reader share it, so that
// what one writes is what the other demands.
// Layout: docs/formats/hrl.md
#pragma once

#include <algorithm>

#include "user/hrl/layout.h"
#include "user/hrl/segment_header.h"

namespace herald::hrl {

// Counts a valid record into the entry of its block.
inline void add_to_summary(IndexEntryDisk& entry, const Record& record, uint32_t data_bytes,
                           LayerPart part) {
    const bool first = entry.record_count == 0;
    if (has_range(record.kind)) {
        const uint64_t end = record.offset + record.length;
        const bool first_range = entry.disk_offset_end == 0;
        entry.disk_offset_min =
            first_range ? record.offset : std::min(entry.disk_offset_min, record.offset);
        entry.disk_offset_end = std::max(entry.disk_offset_end, end);
    }
    entry.time_min_ns = first ? record.time_ns : std::min(entry.time_min_ns, record.time_ns);
    entry.time_max_ns = first ? record.time_ns : std::max(entry.time_max_ns, record.time_ns);
    if (first) entry.first_position = record.position;
    entry.record_count += 1;
    entry.raw_bytes += uint32_t(sizeof(RecordHeaderDisk) + data_bytes);
    entry.kinds |= 1u << unsigned(record.kind);
    if (part == LayerPart::spans) entry.kinds |= kSpansBit;
}

}  // namespace herald::hrl
