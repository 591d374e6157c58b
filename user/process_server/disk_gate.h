// SPDX-License-Identifier: Apache-2.0
// DiskGate takes the segments of one disk in: it runs DiskIntake's decisions against store and
// catalog. Objects are put in parallel; commits go in order, one at a time.
// Promise: acked_is_kept: the acknowledged position is the catalog's head, after the commit
// returned. An object is put before the row that names it; whatever is refused after its object
// was put is removed again, or is garbage at the next start.
// Callers: any thread; blocks on disk.
#pragma once

#include <condition_variable>
#include <map>
#include <mutex>

#include "user/process_server/commit_queue.h"
#include "user/process_server/upload.h"
#include "user/store/object_store.h"

namespace herald::process_server {

struct TakeOutcome {
    OfferVerdict verdict = OfferVerdict::commit;  // in_progress: still, after a long wait
    uint64_t epoch = 0;                           // the disk's newest
    uint64_t head = 0;                            // everything up to here is stored
    Uuid head_segment;                            // the segment that ends there
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
    // An error: the store or the catalog has trouble; nothing was acknowledged.
    Result<TakeOutcome> take(Upload upload, ByteView body);

  private:
    struct Pending {
        vault::SegmentRow row;
        vault::SegmentEffects effects;
    };
    TakeOutcome outcome(OfferVerdict verdict) const;
    Result<void> put_object(const vault::SegmentRow& row, ByteView body);
    Result<void> commit_ready();
    void drop_diverged();
    Result<void> reload();

    const Uuid disk_;
    const Uuid machine_;
    store::ObjectStore& store_;
    vault::Catalog& catalog_;
    CommitQueue& queue_;

    mutable std::mutex lock_;  // level 1; guards all below
    std::condition_variable changed_;
    DiskIntake intake_;
    vault::StreamState state_;             // at intake_.head()
    std::map<uint64_t, Pending> pending_;  // arrived, not committed; by first position
};

}  // namespace herald::process_server
