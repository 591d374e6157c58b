// SPDX-License-Identifier: Apache-2.0
// LastHeard remembers when each disk's machine last spoke of the disk within its newest session,
// and what the store or the catalog had against the newest segment. Promise: status_is_honest:
// whatever the catalog says of a disk's stream, a disk that nothing was heard of for `silent_after`
// is `silent`, and so is one that was not heard of since the server started: it writes nothing
// down, for an fsync per look would cost more than it tells. One whose newest segment could not be
// stored is `paused`, whatever the free space says (a quota, a file system that turned read-only).
// Callers: any thread. Memory: two entries for each disk of the catalog.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <mutex>

#include "user/wire/message_structs.h"

namespace herald::process_server {

// Since the host started, suspended or not: a server that slept has not listened.
std::chrono::nanoseconds time_awake_or_not();
using HostClock = std::function<std::chrono::nanoseconds()>;

class LastHeard {
  public:
    LastHeard(std::chrono::seconds silent_after, HostClock clock);

    void hear(const Uuid& disk);
    // What became of a segment: an empty `why` when it was taken.
    void note_store(const Uuid& disk, const std::string& why);
    // Fills in what is known, and replaces a state that can no longer be vouched for.
    void judge(wire::DiskInfo& disk) const;

  private:
    struct Moment {
        std::chrono::nanoseconds at{};
        uint64_t wall_ns = 0;
    };
    Moment now() const;

    const std::chrono::seconds silent_after_;
    const HostClock clock_;
    const Moment started_;
    mutable std::mutex lock_;  // level 0; guards all below; nothing is called under it
    std::map<Uuid, Moment> heard_;
    std::map<Uuid, std::string> refused_;
};

}  // namespace herald::process_server
