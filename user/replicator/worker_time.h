// SPDX-License-Identifier: Apache-2.0
// The wall clock, as records and tags carry it, and the times that a worker's files share.
#pragma once

#include <chrono>
#include <cstdint>

namespace herald::replicator {

constexpr std::chrono::milliseconds kPublishInterval{200};
constexpr std::chrono::milliseconds kPause{50};         // looking again where no event is promised
constexpr std::chrono::seconds kSessionLongEnough{60};  // to forget the failures before it

inline uint64_t wall_ns() {
    return uint64_t(std::chrono::duration_cast<std::chrono::nanoseconds>(
                        std::chrono::system_clock::now().time_since_epoch())
                        .count());
}

}  // namespace herald::replicator
