// SPDX-License-Identifier: Apache-2.0
#include "user/process_server/space_guard.h"

namespace herald::process_server {

SpaceState space_state(const SpaceLimits& limits, const store::StoreSpace& space, uint64_t bytes) {
    if (space.free_bytes < bytes || space.free_bytes - bytes < limits.free_bytes_min) {
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
