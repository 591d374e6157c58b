// SPDX-License-Identifier: Apache-2.0
// SegmentEffects is what a segment changes in the catalog, gathered in the one pass that verifies
// it: its markers (for the stream's state and points) and the digests of the chunks it touches.
// It needs nothing of the segments before, so it can be gathered when a segment arrives early.
// Promise: a digest is of exactly the chunk's newest bytes, or the chunk is unknown.
// Callers: one thread. Sans I/O. Memory: bounded by HERALD_SEGMENT_MARKERS_MAX and
// _DIGEST_RUNS_MAX. Failure: operator_needed when a segment holds more markers than a server keeps.
#pragma once

#include <vector>

#include "user/base/digest.h"
#include "user/hrl/segment_writer.h"
#include "user/vault/stream_state.h"

namespace herald::vault {

// Chunks (of HERALD_BLOCK_BYTES) that got a new digest; later runs override earlier ones.
struct DigestRun {
    uint64_t first_chunk = 0;
    uint64_t chunks = 1;
    Digest128 digest;  // of each of the chunks; all zero: unknown
    bool operator==(const DigestRun&) const = default;
};

class SegmentEffects {
  public:
    explicit SegmentEffects(const hrl::SegmentHeader& header);
    // Every record of the segment, in order.
    Result<void> observe(const hrl::Record& record);

    // Advances the state by this segment; says of each tag what became of it.
    Result<std::vector<TagVerdict>> advance(StreamState& state) const;
    const std::vector<DigestRun>& digests() const { return digests_; }
    // The same when the disk had another size before (StreamState::disk_bytes(), 0: no disk yet)
    // and no record said so: the chunks at and between both ends become unknown first.
    std::vector<DigestRun> digests_after(uint64_t previous_disk_bytes) const;

  private:
    struct Marker {
        hrl::Record record;  // without data
        Bytes payload;
        bool data_before = false;  // data records lie between the marker before and this one
    };
    void observe_range(uint64_t offset, uint64_t length, ByteView data, bool zero);
    void add_run(DigestRun run);

    uint64_t first_disk_bytes_;
    uint64_t disk_bytes_;
    std::vector<Marker> markers_;
    bool data_after_ = false;
    std::vector<DigestRun> digests_;
    uint64_t zero_chunks_ = 0;
};

}  // namespace herald::vault
