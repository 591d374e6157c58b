// SPDX-License-Identifier: Apache-2.0
// Crash points: named places at which a test can make the process die as from SIGKILL.
// HERALD_CRASH_AT=name[:n] in the environment kills the process at the n-th time (default the
// first) that crash_point(name) is reached. Put one on each side of every durable step.
// Promise: nothing runs after the kill: no destructor, no flush. Not armed: one relaxed load.
// Callers: any thread. Names are "part.step", for example "store.temp_synced".
#pragma once

#include <atomic>
#include <string_view>

namespace herald {

namespace detail {
extern std::atomic<bool> crash_point_armed;
void crash_point_reached(std::string_view name);
}  // namespace detail

inline void crash_point(std::string_view name) {
    if (detail::crash_point_armed.load(std::memory_order_relaxed)) [[unlikely]] {
        detail::crash_point_reached(name);
    }
}

// Arms as the environment variable would; empty disarms. For a test's forked child.
void arm_crash_point(std::string_view name_and_count);

}  // namespace herald
