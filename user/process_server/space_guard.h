// SPDX-License-Identifier: Apache-2.0
// SpaceGuard says from the free space of a store or catalog what its state is, and whether one more
// object may be taken. It refuses before the disk is full: the catalog must always have room to
// commit. What is refused and what operators are told is one verdict, so it is not about the size
// of a segment that is offered, but about the largest one.
// Callers: any thread. Sans I/O.
#pragma once

#include "herald/limits.h"
#include "user/store/object_store.h"

namespace herald::process_server {

struct SpaceLimits {
    // An object must leave this free; full when the largest one would not.
    uint64_t free_bytes_min = 512ull << 20;
    uint64_t object_bytes_max = HERALD_SEGMENT_BYTES_MAX;
    // With more than this free, the shares below do not matter: 10 % of a large disk is plenty.
    uint64_t free_bytes_plenty = 8ull << 30;
    unsigned warning_percent = 30;
    unsigned alert_percent = 25;
    unsigned slow_percent = 20;  // sources are asked to slow down
};

enum class SpaceState { ok, warning, alert, slow, full };

// Those for a catalog, whose commits are small: it needs less of a floor than segments do.
SpaceLimits catalog_limits(SpaceLimits limits);

SpaceState space_state(const SpaceLimits& limits, const store::StoreSpace& space);
// Which of the two is full, "store" or "catalog"; null when segments are taken.
const char* full_place(const SpaceLimits& limits, const store::StoreSpace& store,
                       const store::StoreSpace& catalog);
// As ServerStatus.store_state and catalog_state; slow is an alert.
const char* to_string(SpaceState state);

}  // namespace herald::process_server
