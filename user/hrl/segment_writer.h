// SPDX-License-Identifier: Apache-2.0
// SegmentWriter builds one v3 segment in memory: append records, then finish.
// Promise: the bytes of a finished segment open with SegmentReader to exactly these records.
// Callers: one thread. Sans I/O. Memory: the compressed segment and one open block.
// Failure: a record that validate() refuses, or is out of order, is refused and nothing changes.
// Layout: docs/formats/hrl.md
#pragma once

#include <memory>

#include "herald/limits.h"
#include "user/hrl/record.h"

namespace herald::hrl {

struct SegmentHeader {
    Uuid machine;
    Uuid disk;
    Uuid segment;           // random; names this file for good
    Uuid previous_segment;  // nil for the first of a stream
    uint64_t epoch = 0;
    uint64_t first_position = 0;
    uint64_t disk_bytes = 0;  // size of the source disk when the segment was begun
    uint64_t created_ns = 0;  // since 1970
    uint32_t block_bytes = HERALD_HRL_BLOCK_BYTES_MAX;
    bool operator==(const SegmentHeader&) const = default;
};

// Refuses a block size, first position or disk size that no segment may have.
Result<void> validate(const SegmentHeader& header);

struct Segment {
    SegmentHeader header;
    uint64_t last_position = 0;
    uint64_t raw_bytes = 0;  // record headers and data before compression
    Bytes bytes;             // the file
};

class SegmentWriter {
  public:
    explicit SegmentWriter(const SegmentHeader& header);
    SegmentWriter(SegmentWriter&&) noexcept;
    SegmentWriter& operator=(SegmentWriter&&) noexcept;
    ~SegmentWriter();

    // record.position must be the next one: first_position, first_position + 1, ...
    Result<void> append(const Record& record);
    uint64_t raw_bytes() const;
    uint64_t records() const;
    uint64_t next_position() const;
    // Seals the open block, writes index and footer. At least one record must have been appended.
    Result<Segment> finish() &&;

  private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace herald::hrl
