// SPDX-License-Identifier: Apache-2.0
// find_boundary() finds out of the stored stream itself which record boundary a restore may end at.
// Promise: what is named is restorable by StreamState's rules; what is not is refused by the cause
// that made its span fuzzy, and nothing is written for it.
// Callers: one thread; blocks. Reads every segment up to the boundary; by a time, to the end.
// Failure: operator_needed when there is no such boundary; the provider's; corrupt names a segment.
#pragma once

#include <functional>
#include <optional>

#include "user/vault/restore.h"
#include "user/vault/stream_state.h"

namespace herald::vault {

// A position or a time.
struct BoundaryChoice {
    std::optional<uint64_t> position;  // behind this record
    std::optional<uint64_t> time_ns;   // the newest at or before
    // With a time: that moment or none. So several disks of one machine get the same one: an older
    // boundary of one disk beside the moment of another may lack what the other was written after.
    bool exact = false;
};

struct Boundary {
    uint64_t position = 0;
    uint64_t time_ns = 0;  // of its last record
    uint64_t disk_bytes = 0;
    uint64_t stream_bytes = 0;  // segment files up to it
};

// `step` (may be null) is called for each segment; returning an error cancels.
Result<Boundary> find_boundary(SegmentProvider& provider, const Uuid& disk,
                               const BoundaryChoice& choice,
                               const std::function<Result<void>(uint64_t bytes)>& step = nullptr);

}  // namespace herald::vault
