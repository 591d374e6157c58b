// SPDX-License-Identifier: Apache-2.0
// restore() writes a disk's image at one position of its stream onto an image file or a device.
// Promise: exact_at_point and torn_is_refused: every segment is compared with its catalog row and
// verified whole before a byte of it is written; nothing after the position is written; the first
// thing that does not fit stops the restore with an error that names the segment.
// Callers: one thread; blocks. Memory: two segments. The target is flushed before it returns.
// Failure: corrupt names segment and positions; what was written until then stays.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "user/base/bytes.h"
#include "user/base/result.h"
#include "user/wire/message_structs.h"

namespace herald::store {
class ObjectStore;
}

namespace herald::vault {

class Catalog;

// Where a restore gets its segments: a server's own store and catalog, or HTTP. Calls never
// overlap, but come from different threads: fetch() runs ahead while a segment is applied.
class SegmentProvider {
  public:
    virtual ~SegmentProvider() = default;
    // Segments of the disk whose last position is after `after`, in order; at most `limit`.
    virtual Result<std::vector<wire::SegmentInfo>> segments(const Uuid& disk, uint64_t after,
                                                            size_t limit) = 0;
    // The segment's file. It is checked against the info by restore().
    virtual Result<Bytes> fetch(const Uuid& disk, const wire::SegmentInfo& segment) = 0;
};

// Borrows both.
std::unique_ptr<SegmentProvider> local_provider(Catalog& catalog, store::ObjectStore& store);

struct RestoreRequest {
    Uuid disk;
    uint64_t position = 0;  // of the recovery point's tag
    // At the point; what lies behind it in a larger target stays. A device must have as many, also
    // where the disk was larger before. 0: not known.
    uint64_t disk_bytes = 0;
    int fd = -1;         // borrowed, open for reading and writing
    std::string target;  // for messages
};

struct RestoreProgress {
    uint64_t position = 0;  // everything up to here is applied
    uint64_t target_position = 0;
    uint64_t segments = 0;
    uint64_t segment_bytes = 0;  // read
    uint64_t written_bytes = 0;  // to the target, zeroes included
};

// `progress` (may be null) is called after each segment; returning an error cancels.
Result<RestoreProgress> restore(
    SegmentProvider& provider, const RestoreRequest& request,
    const std::function<Result<void>(const RestoreProgress&)>& progress = nullptr);

}  // namespace herald::vault
