// SPDX-License-Identifier: Apache-2.0
#include "user/hrl/segment_header.h"

#include "user/hrl/layout.h"

namespace herald::hrl {

Result<void> validate(const SegmentHeader& header) {
    const auto refuse = [](auto format, uint64_t value) -> Result<void> {
        return fail(ErrorKind::corrupt, "segment header: {} {}", format, value);
    };
    if (header.block_bytes < kBlockBytesMin || header.block_bytes > HERALD_HRL_BLOCK_BYTES_MAX) {
        return refuse("blocks may not have the size", header.block_bytes);
    }
    if (header.first_position == 0 || header.first_position > HERALD_POSITION_MAX) {
        return refuse("no record has the position", header.first_position);
    }
    if (header.disk_bytes > HERALD_DISK_BYTES_MAX || header.disk_bytes % HERALD_SECTOR_BYTES != 0) {
        return refuse("no disk has the size", header.disk_bytes);
    }
    const bool by_block = header.order == RecordOrder::by_block_then_position;
    if (by_block ? header.granule_log2 < kGranuleLog2Min || header.granule_log2 > kGranuleLog2Max
                 : header.granule_log2 != 0) {
        return refuse("records in this order may not have a granule of 2 to the",
                      header.granule_log2);
    }
    if ((header.contents == Contents::segment && by_block) ||
        (header.contents == Contents::image_layer && !by_block)) {
        return refuse("its records may not have the order", uint8_t(header.order));
    }
    if (header.contents != Contents::segment && !header.previous_segment.is_nil()) {
        return refuse("a layer has no segment before it, but its contents are",
                      uint8_t(header.contents));
    }
    return {};
}

Result<LayerPart> OrderCheck::take(const Record& record) {
    if (header_.contents == Contents::segment) {
        if (record.position != next_position_) {
            return fail(ErrorKind::corrupt, "record {} stands where {} belongs", record.position,
                        next_position_);
        }
        next_position_ += 1;
        return LayerPart::markers;
    }
    if (record.position < next_position_ || record.position > last_position_) {
        return fail(ErrorKind::corrupt, "record {} lies outside of the positions of the layer",
                    record.position);
    }
    const OrderKey key = order_key(header_, record);
    if (last_ && key <= *last_) {
        return fail(ErrorKind::corrupt, "record {} at byte {} is out of order", record.position,
                    record.offset);
    }
    if (key.part == LayerPart::spans && record.kind == RecordKind::write) {
        return fail(ErrorKind::corrupt, "record {}: a write crosses a granule", record.position);
    }
    if (header_.contents == Contents::image_layer &&
        (!has_range(record.kind) || record.kind == RecordKind::reread)) {
        return fail(ErrorKind::corrupt, "record {}: an image holds no {}", record.position,
                    to_string(record.kind));
    }
    last_ = key;
    return key.part;
}

}  // namespace herald::hrl
