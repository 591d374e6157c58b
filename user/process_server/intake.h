// SPDX-License-Identifier: Apache-2.0
// DiskIntake decides what becomes of each segment a replicator offers for one disk: in which order
// segments are committed, how many may wait ahead of the head, and which are refused.
// Promise: fenced, and order: a segment is handed out for commit only when its epoch is the newest
// and it continues the head by position and by the previous segment's id.
// Life of a slot: offer() accepts -> the shell makes it durable -> arrived() (or abandon()) ->
// next() hands it out when it continues the head -> committed() (or abandon()).
// Callers: one at a time. Sans I/O: no threads, clocks or disks inside; the simulator runs it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>

#include "user/base/digest.h"
#include "user/base/uuid.h"

namespace herald::process_server {

struct OfferedSegment {
    uint64_t epoch = 0;
    uint64_t first = 0;
    uint64_t last = 0;
    Digest128 digest;  // of the file
    Uuid segment;
    Uuid previous;
    bool operator==(const OfferedSegment&) const = default;
};

enum class OfferVerdict {
    commit,       // continues the head: make it durable, then commit
    hold,         // within the window ahead of the head: make it durable, commit later
    duplicate,    // the very same segment is stored or held: acknowledge again
    in_progress,  // the very same segment is being made durable by another request
    ahead,        // beyond the window: the head must come first
    fenced,       // not of the newest epoch
    diverged,     // these positions hold, or follow, something else
};
const char* to_string(OfferVerdict verdict);

class DiskIntake {
  public:
    // From the disk's catalog row.
    DiskIntake(uint64_t epoch, uint64_t head, const Uuid& head_segment);

    // A newer epoch was granted: everything not committed is dropped.
    void new_epoch(uint64_t epoch);

    // `stored`: what the catalog holds at exactly offered.first, when that is not after head().
    // commit and hold take a slot, which the shell must end with arrived() or abandon().
    OfferVerdict offer(const OfferedSegment& offered,
                       const std::optional<OfferedSegment>& stored = std::nullopt);
    // The segment is durable. False: its slot is gone (a newer epoch), the file is garbage.
    bool arrived(const OfferedSegment& offered);
    // It could not be made durable or committed: the slot is free again.
    void abandon(const OfferedSegment& offered);

    // The arrived segment that continues the head, if any.
    std::optional<OfferedSegment> next() const;
    // Arrived segments at the head that do not continue it; they are taken out.
    std::optional<OfferedSegment> take_diverged();
    void committed(const OfferedSegment& offered);

    uint64_t epoch() const { return epoch_; }
    uint64_t head() const { return head_; }
    const Uuid& head_segment() const { return head_segment_; }
    size_t slots() const { return slots_.size(); }
    // It has a slot: it is being made durable, or waits for the head.
    bool holds(const OfferedSegment& offered) const;

  private:
    struct Slot {
        OfferedSegment offered;
        bool arrived = false;
    };

    uint64_t epoch_;
    uint64_t head_;
    Uuid head_segment_;
    std::map<uint64_t, Slot> slots_;  // by first position; all after head_, not overlapping
};

}  // namespace herald::process_server
