// SPDX-License-Identifier: Apache-2.0
// FreezeAside freezes and thaws the filesystems of one point on a thread of its own: a disk that
// hangs keeps FIFREEZE and FITHAW for ever, and whoever asked for the point is to hear of it.
// Promise: the filesystems are thawed when it is destroyed; that waits for the disk. Without a
// thread for it nothing is frozen, and frozen() says so.
// Callers: one thread. Borrows the Freezer. Owns: the thread, and what it freezes.
#pragma once

#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "user/agent/freeze.h"

namespace herald::replicator {

class FreezeAside {
  public:
    using Clock = std::chrono::steady_clock;

    FreezeAside(const agent::Freezer& freezer, std::vector<agent::MountedFilesystem> filesystems,
                std::chrono::milliseconds deadline);
    FreezeAside(const FreezeAside&) = delete;
    FreezeAside& operator=(const FreezeAside&) = delete;
    ~FreezeAside();

    // Nothing: not by then.
    std::optional<Result<void>> frozen(Clock::time_point until);
    std::optional<agent::Thawed> thaw(Clock::time_point until);
    // Instead of thaw(): the disk does not answer. Returns when the freeze is over, or then.
    void leave_to_guardian(Clock::time_point until);

  private:
    void run(const agent::Freezer& freezer,
             const std::vector<agent::MountedFilesystem>& filesystems,
             std::chrono::milliseconds deadline);

    std::mutex lock_;  // guards all below; a leaf
    std::condition_variable changed_;
    std::optional<Result<void>> frozen_;
    bool let_go_ = false;
    bool to_guardian_ = false;
    std::optional<agent::Thawed> thawed_;
    std::thread thread_;
};

}  // namespace herald::replicator
