// SPDX-License-Identifier: Apache-2.0
// The wall clock, as records and tags carry it.
#pragma once

#include <chrono>
#include <cstdint>

namespace herald::replicator {

inline uint64_t wall_ns() {
    return uint64_t(std::chrono::duration_cast<std::chrono::nanoseconds>(
                        std::chrono::system_clock::now().time_since_epoch())
                        .count());
}

}  // namespace herald::replicator
