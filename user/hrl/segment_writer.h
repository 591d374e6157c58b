// SPDX-License-Identifier: Apache-2.0
// SegmentWriter builds one v3 segment in memory: append records, then finish.
// Promise: the bytes of a finished segment open with SegmentReader to exactly these records.
// Callers: one thread. Sans I/O. Memory: the compressed segment (what take() left of it), its index
// and one open block.
// Sealed: each writer seals under a key of its own (nonce_once), so a segment that is written again
// comes out different, and only the records are the same.
// Failure: a record that validate() refuses, or is out of order, is refused and nothing changes.
// Layout: docs/formats/hrl.md
#pragma once

#include <memory>

#include "user/hrl/segment_header.h"
#include "user/seal/file_cipher.h"

namespace herald::hrl {

struct Segment {
    SegmentHeader header;
    uint64_t last_position = 0;
    uint64_t raw_bytes = 0;   // record headers and data before compression
    uint64_t file_bytes = 0;  // of the whole file
    Bytes bytes;              // the file, or what take() left of it
};

struct Sealing {
    SealedBy by = SealedBy::server;
    const seal::MachineKey* key = nullptr;    // the header's machine's
    std::optional<Uuid> seal = std::nullopt;  // for golden files only: otherwise drawn anew
};

class SegmentWriter {
  public:
    // `raw_bytes`: about how much will be appended; memory is taken for it.
    explicit SegmentWriter(const SegmentHeader& header,
                           uint64_t raw_bytes = HERALD_SEGMENT_BYTES_DEFAULT);
    SegmentWriter(const SegmentHeader& header, const Sealing& sealing);
    SegmentWriter(SegmentWriter&&) noexcept;
    SegmentWriter& operator=(SegmentWriter&&) noexcept;
    ~SegmentWriter();

    // In a segment record.position must be the next one: first_position, first_position + 1, ...
    // In a layer the record must come next by the header's order.
    Result<void> append(const Record& record);
    uint64_t raw_bytes() const;
    uint64_t records() const;
    uint32_t blocks() const;  // closed ones
    // Behind the last position that there may be: HERALD_POSITION_MAX + 1, which append() refuses.
    uint64_t next_position() const;
    // The bytes that are done since the last call, so that a file may be larger than memory. They
    // are no file before finish() has given the rest.
    Bytes take();
    // Closes the open block, writes index and footer. At least one record must have been appended.
    // `covered_to`: the last position that a layer covers; 0: that of its newest record.
    Result<Segment> finish(uint64_t covered_to = 0) &&;

  private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace herald::hrl
