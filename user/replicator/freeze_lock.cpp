// SPDX-License-Identifier: Apache-2.0
#include "user/replicator/freeze_lock.h"

#include <algorithm>

namespace herald::replicator {

bool FreezeLock::wait_until_free(std::unique_lock<std::mutex>& lock, Clock::time_point until) {
    while (writing_ || (freeze_ != 0 && Clock::now() < over_at_)) {
        if (Clock::now() >= until) return false;
        if (!writing_) {
            freed_.wait_until(lock, std::min(over_at_, until));
        } else if (until == Clock::time_point::max()) {
            freed_.wait(lock);
        } else {
            freed_.wait_until(lock, until);
        }
    }
    freeze_ = 0;
    return true;
}

void FreezeLock::lock() {
    std::unique_lock lock(lock_);
    (void)wait_until_free(lock, Clock::time_point::max());
    writing_ = true;
}

void FreezeLock::unlock() {
    const std::lock_guard lock(lock_);
    writing_ = false;
    freed_.notify_all();
}

FreezeLock::Freeze::Freeze(FreezeLock& lock, Clock::duration longest, Clock::time_point until)
    : lock_(lock) {
    std::unique_lock held(lock_.lock_);
    if (!lock_.wait_until_free(held, until)) return;
    number_ = lock_.freeze_ = ++lock_.freezes_;
    lock_.over_at_ = Clock::now() + longest;
}

FreezeLock::Freeze::~Freeze() {
    const std::lock_guard held(lock_.lock_);
    // It never began, or took too long, and another came after it.
    if (!began() || lock_.freeze_ != number_) return;
    lock_.freeze_ = 0;
    lock_.freed_.notify_all();
}

}  // namespace herald::replicator
