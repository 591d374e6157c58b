// SPDX-License-Identifier: Apache-2.0
// SegmentBuilder gives records their positions and groups them into segments, closed by size, by
// age, by the number of markers that a server takes, or by flush().
// Promise: positions are consecutive from head + 1, across segments; every segment names the one
// before it; nothing appended is in a segment that was closed earlier.
// Callers: one thread. Sans I/O. Memory: one open segment and those nobody took yet.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "user/hrl/segment_writer.h"

namespace herald::replicator {

using SegmentPtr = std::shared_ptr<const hrl::Segment>;

struct BuilderOptions {
    Uuid machine;
    Uuid disk;
    uint64_t disk_bytes = 0;
    uint64_t segment_bytes = HERALD_SEGMENT_BYTES_DEFAULT;
    uint64_t segment_age_ms = HERALD_SEGMENT_AGE_MS_DEFAULT;
};

class SegmentBuilder {
  public:
    // make_id: a random id for each segment.
    SegmentBuilder(BuilderOptions options, std::function<Uuid()> make_id);

    // A new session: whatever was open or not taken is dropped.
    void begin(uint64_t epoch, uint64_t head, const Uuid& head_segment);
    // Fills in position and time; returns the position. Closes the segment when it is full.
    Result<uint64_t> append(hrl::Record record, uint64_t time_ns);
    // Closes the open segment, if there is one.
    Result<void> flush();
    // Closes the open segment when its first record is old enough.
    Result<void> close_aged(uint64_t time_ns);
    // The oldest ones, at most segments_max.
    std::vector<SegmentPtr> take_closed(size_t segments_max = SIZE_MAX);
    size_t closed_segments() const { return closed_.size(); }

    // Position of the record appended last; the head when there is none yet.
    uint64_t last_position() const { return last_position_; }
    // Of the open segment and those that nobody took yet.
    uint64_t untaken_bytes() const { return closed_bytes_ + (open_ ? open_->raw_bytes() : 0); }
    // When the open segment will be closed by age; nothing when none is open.
    std::optional<uint64_t> close_at_ns() const;

  private:
    BuilderOptions options_;
    std::function<Uuid()> make_id_;
    uint64_t epoch_ = 0;
    uint64_t last_position_ = 0;
    uint64_t opened_ns_ = 0;
    uint64_t markers_ = 0;  // of the open segment
    Uuid previous_segment_;
    std::optional<hrl::SegmentWriter> open_;
    std::deque<SegmentPtr> closed_;
    uint64_t closed_bytes_ = 0;
};

}  // namespace herald::replicator
