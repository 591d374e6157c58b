// SPDX-License-Identifier: Apache-2.0
// What a file says of itself in its header, and what orders its records may have.
// Layout: docs/formats/hrl.md
#pragma once

#include <algorithm>
#include <optional>
#include <tuple>

#include "herald/limits.h"
#include "user/base/uuid.h"
#include "user/hrl/record.h"

namespace herald::hrl {

enum class RecordOrder : uint8_t { by_position = 1, by_block_then_position = 2 };

enum class Contents : uint8_t {
    segment = 0,      // every record of a range of positions
    delta_layer = 1,  // what is kept of a range of positions
    image_layer = 2,  // the disk as it was at the last position
};

// Who sealed a file, and so who has the key.
enum class SealedBy : uint8_t { nobody = 0, server = 1, source = 2 };

struct SegmentHeader {
    Uuid machine;
    Uuid disk;
    Uuid segment;           // random; names this file for good
    Uuid previous_segment;  // nil for the first of a stream, and in layers
    uint64_t epoch = 0;
    uint64_t first_position = 0;
    uint64_t disk_bytes = 0;  // size of the source disk when the segment was begun
    uint64_t created_ns = 0;  // since 1970
    uint32_t block_bytes = HERALD_HRL_BLOCK_BYTES_MAX;
    Contents contents = Contents::segment;
    RecordOrder order = RecordOrder::by_position;
    uint8_t granule_log2 = 0;  // order by block: 2^granule_log2 bytes are one block of the disk
    // Of a file that was read. A writer has no optional feature and writes none: whoever copies a
    // file through it says what was dropped.
    uint32_t features_optional = 0;
    // Of a sealed file; set by the writer that seals.
    SealedBy sealed_by = SealedBy::nobody;
    Uuid key_id;
    Uuid seal;
    bool operator==(const SegmentHeader&) const = default;
};

// Refuses sizes, positions, and combinations of order and contents that no file may have.
Result<void> validate(const SegmentHeader& header);

inline bool has_range(RecordKind kind) {
    switch (kind) {
        case RecordKind::write:
        case RecordKind::zeroes:
        case RecordKind::discard:
        case RecordKind::secure_erase:
        case RecordKind::reread:
            return true;
        default:
            return false;
    }
}

// Order 2 has three parts, one behind the other; no block holds records of two.
enum class LayerPart : uint8_t { markers = 0, spans = 1, pieces = 2 };

// Where a record stands in a file: keys ascend strictly from record to record.
struct OrderKey {
    LayerPart part = LayerPart::markers;
    uint64_t granule = 0;
    uint64_t position = 0;
    uint64_t offset = 0;
    auto operator<=>(const OrderKey&) const = default;
};

inline OrderKey order_key(const SegmentHeader& header, const Record& record) {
    if (header.order == RecordOrder::by_position || !has_range(record.kind)) {
        return {LayerPart::markers, 0, record.position, record.offset};
    }
    const uint64_t first = record.offset >> header.granule_log2;
    const uint64_t last = (record.offset + record.length - 1) >> header.granule_log2;
    return {first == last ? LayerPart::pieces : LayerPart::spans, first, record.position,
            record.offset};
}

// Checks one valid record after another against what the header promises.
class OrderCheck {
  public:
    explicit OrderCheck(const SegmentHeader& header)
        : header_(header), next_position_(header.first_position) {}

    // The next position of a segment; in layers the lowest that any record may have.
    uint64_t next_position() const { return next_position_; }
    // Its part, or why the record may not come next; nothing changes then.
    Result<LayerPart> take(const Record& record);
    // The last position that the file covers, when that is known.
    void set_last_position(uint64_t position) { last_position_ = position; }
    // Goes on at a place that the index names, whatever was before it.
    void jump_to(uint64_t position) {
        if (header_.contents == Contents::segment) next_position_ = position;
        last_.reset();
    }

  private:
    SegmentHeader header_;
    uint64_t next_position_;
    uint64_t last_position_ = HERALD_POSITION_MAX;
    std::optional<OrderKey> last_;
};

}  // namespace herald::hrl
