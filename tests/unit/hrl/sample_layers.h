// SPDX-License-Identifier: Apache-2.0
// Sample layers for tests: the records of a stream, sorted and cut as a compaction does.
#pragma once

#include <algorithm>

#include "tests/unit/hrl/sample_segments.h"

namespace herald::hrl::test {

inline constexpr uint8_t kGranuleLog2 = 12;
inline constexpr uint64_t kGranule = 1u << kGranuleLog2;

inline SegmentHeader layer_header(uint32_t block_bytes, Contents contents = Contents::delta_layer) {
    SegmentHeader header = sample_header(block_bytes);
    header.contents = contents;
    header.order = RecordOrder::by_block_then_position;
    header.granule_log2 = kGranuleLog2;
    return header;
}

// Cuts writes at granules and sorts, as a compaction does.
inline std::vector<OwnedRecord> sorted_for(const SegmentHeader& header,
                                           const std::vector<OwnedRecord>& stream) {
    std::vector<OwnedRecord> records;
    for (const OwnedRecord& from : stream) {
        if (from.record.kind != RecordKind::write) {
            records.push_back(from);
            continue;
        }
        for (uint64_t at = 0; at < from.data.size();) {
            Record piece = from.view();
            piece.offset += at;
            piece.length = std::min(from.data.size() - at, kGranule - piece.offset % kGranule);
            piece.data = piece.data.subspan(at, piece.length);
            records.emplace_back(piece);
            at += piece.length;
        }
    }
    std::sort(records.begin(), records.end(), [&](const OwnedRecord& a, const OwnedRecord& b) {
        return order_key(header, a.view()) < order_key(header, b.view());
    });
    return records;
}

inline Segment write_layer(const SegmentHeader& header, const std::vector<OwnedRecord>& records,
                           uint64_t covered_to = 0, const seal::MachineKey* key = nullptr) {
    SegmentWriter writer =
        key ? SegmentWriter(header, {SealedBy::server, key}) : SegmentWriter(header);
    for (const OwnedRecord& record : records) REQUIRE(writer.append(record.view()));
    auto layer = std::move(writer).finish(covered_to);
    INFO((layer ? std::string() : layer.error().message));
    REQUIRE(layer);
    return std::move(*layer);
}

// The disk as a layer: what of it is not zero, at the stream's last position.
inline std::vector<OwnedRecord> image_records(ByteView disk, uint64_t position) {
    std::vector<OwnedRecord> records;
    for (uint64_t at = 0; at < disk.size(); at += kGranule) {
        const ByteView piece = disk.subspan(at, kGranule);
        if (all_zero(piece)) continue;
        Record record;
        record.position = position;
        record.offset = at;
        record.length = kGranule;
        record.time_ns = 1'700'000'001'000'000'000ull;
        record.data = piece;
        records.emplace_back(record);
    }
    return records;
}

}  // namespace herald::hrl::test
