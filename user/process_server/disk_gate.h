// SPDX-License-Identifier: Apache-2.0
// DiskGate takes the segments of one disk in: it runs DiskIntake's decisions against store and
// catalog. Objects are put in parallel; commits go in order, one at a time.
// Promise: acked_is_kept: the acknowledged position is the catalog's head, after the commit
// returned. An object is put before the row that names it; whatever is refused after its object
// was put is removed again, or is garbage at the next start. Each segment is answered by its own
// fate, whatever becomes of those that waited for it.
// Callers: any thread; blocks on disk.
#pragma once

#include <map>
#include <mutex>

#include "user/process_server/commit_queue.h"
#include "user/process_server/upload.h"
#include "user/store/object_store.h"

namespace herald::process_server {

struct TakeOutcome {
    OfferVerdict verdict = OfferVerdict::commit;
    uint64_t epoch = 0;   // the disk's newest
    uint64_t head = 0;    // everything up to here is stored
    Uuid head_segment;    // the segment that ends there
    std::string refusal;  // why this segment can never be part of the stream; empty: it can
};

class DiskGate {
  public:
    DiskGate(const vault::DiskRow& row, store::ObjectStore& store, vault::Catalog& catalog,
             CommitQueue& queue);

    const Uuid& disk() const { return disk_; }
    const Uuid& machine() const { return machine_; }
    uint64_t epoch() const;

    Result<vault::GrantReply> grant(const wire::SessionRequest& request);
    // What a writer of this epoch is told: `duplicate` and the head, or `fenced`.
    TakeOutcome look(uint64_t epoch) const;
    // An error: the store or the catalog has trouble with this segment; it is not acknowledged.
    Result<TakeOutcome> take(Upload upload, ByteView body);

  private:
    struct Pending {
        vault::SegmentRow row;
        vault::SegmentEffects effects;
    };
    TakeOutcome outcome(OfferVerdict verdict) const;
    Result<void> put_object(const vault::SegmentRow& row, ByteView body);
    // What kept commit_ready() from committing the segment that begins at `first`.
    struct Stop {
        uint64_t first = 0;
        bool refused = false;  // it is dropped; otherwise it waits for the next request
        Error error;
    };
    std::optional<Stop> commit_ready();
    Result<TakeOutcome> fate_of(const OfferedSegment& offered, OfferVerdict verdict,
                                const std::optional<Stop>& stop) const;
    void drop(std::map<uint64_t, Pending>::iterator pending);
    void drop_diverged();
    Error reload();

    const Uuid disk_;
    const Uuid machine_;
    store::ObjectStore& store_;
    vault::Catalog& catalog_;
    CommitQueue& queue_;

    mutable std::mutex lock_;  // level 1; guards all below
    DiskIntake intake_;
    vault::StreamState state_;             // at intake_.head()
    std::map<uint64_t, Pending> pending_;  // arrived, not committed; by first position
};

}  // namespace herald::process_server
