// SPDX-License-Identifier: Apache-2.0
#include "user/replicator/freeze_aside.h"

#include <system_error>

namespace herald::replicator {

FreezeAside::FreezeAside(const agent::Freezer& freezer,
                         std::vector<agent::MountedFilesystem> filesystems,
                         std::chrono::milliseconds deadline) {
    try {
        thread_ = std::thread([this, &freezer, filesystems = std::move(filesystems), deadline] {
            run(freezer, filesystems, deadline);
        });
    } catch (const std::system_error& thrown) {
        frozen_ = fail(ErrorKind::retry, "no thread for it: {}", thrown.what());
    }
}

FreezeAside::~FreezeAside() {
    {
        const std::lock_guard lock(lock_);
        let_go_ = true;
        changed_.notify_all();
    }
    if (thread_.joinable()) thread_.join();
}

std::optional<Result<void>> FreezeAside::frozen(Clock::time_point until) {
    std::unique_lock lock(lock_);
    changed_.wait_until(lock, until, [&] { return frozen_.has_value(); });
    return frozen_;
}

std::optional<agent::Thawed> FreezeAside::thaw(Clock::time_point until) {
    std::unique_lock lock(lock_);
    let_go_ = true;
    changed_.notify_all();
    changed_.wait_until(lock, until, [&] { return thawed_.has_value(); });
    return thawed_;
}

void FreezeAside::leave_to_guardian(Clock::time_point until) {
    std::unique_lock lock(lock_);
    let_go_ = to_guardian_ = true;
    changed_.notify_all();
    changed_.wait_until(lock, until, [&] { return thawed_.has_value(); });
}

void FreezeAside::run(const agent::Freezer& freezer,
                      const std::vector<agent::MountedFilesystem>& filesystems,
                      std::chrono::milliseconds deadline) {
    auto taken = freezer.freeze(filesystems, deadline);
    std::unique_lock lock(lock_);
    frozen_ = taken ? Result<void>() : Result<void>(pass(taken));
    changed_.notify_all();
    if (!taken) return;
    changed_.wait(lock, [&] { return let_go_; });
    const bool to_guardian = to_guardian_;
    lock.unlock();
    agent::Thawed thawed;
    if (to_guardian) {
        taken->leave_to_guardian();
    } else {
        thawed = taken->thaw();
    }
    lock.lock();
    thawed_ = thawed;
    changed_.notify_all();
}

}  // namespace herald::replicator
