// SPDX-License-Identifier: Apache-2.0
#include "user/process_server/space_guard.h"

#include <algorithm>

namespace herald::process_server {

namespace {

// A commit of a whole window of every disk's digests, and the write-ahead log before a checkpoint
// takes it in, are a few MiB.
constexpr uint64_t kCatalogFreeBytesMin = 16u << 20;
constexpr uint64_t kCatalogFreeBytesPlenty = 1u << 30;

}  // namespace

SpaceLimits catalog_limits(SpaceLimits limits) {
    limits.free_bytes_min = std::min(limits.free_bytes_min, kCatalogFreeBytesMin);
    limits.free_bytes_plenty = std::min(limits.free_bytes_plenty, kCatalogFreeBytesPlenty);
    limits.object_bytes_max = 0;
    return limits;
}

SpaceState space_state(const SpaceLimits& limits, const store::StoreSpace& space) {
    // Not by addition: nearly all numbers are allowed for the least.
    if (space.free_bytes < limits.object_bytes_max ||
        space.free_bytes - limits.object_bytes_max < limits.free_bytes_min) {
        return SpaceState::full;
    }
    if (space.free_bytes >= limits.free_bytes_plenty) return SpaceState::ok;
    // By division: free_bytes * 100 could overflow on what a strange file system reports.
    const uint64_t percent = space.free_bytes / (space.total_bytes / 100 + 1);
    if (percent < limits.slow_percent) return SpaceState::slow;
    if (percent < limits.alert_percent) return SpaceState::alert;
    if (percent < limits.warning_percent) return SpaceState::warning;
    return SpaceState::ok;
}

const char* full_place(const SpaceLimits& limits, const store::StoreSpace& store,
                       const store::StoreSpace& catalog) {
    if (space_state(limits, store) == SpaceState::full) return "store";
    if (space_state(catalog_limits(limits), catalog) == SpaceState::full) return "catalog";
    return nullptr;
}

const char* to_string(SpaceState state) {
    switch (state) {
        case SpaceState::ok:
            return "ok";
        case SpaceState::warning:
            return "warning";
        case SpaceState::alert:
        case SpaceState::slow:
            return "alert";
        case SpaceState::full:
            return "full";
    }
    return "unknown";
}

}  // namespace herald::process_server
