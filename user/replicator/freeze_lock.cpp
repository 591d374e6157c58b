// SPDX-License-Identifier: Apache-2.0
#include "user/replicator/freeze_lock.h"

namespace herald::replicator {

void FreezeLock::wait_until_free(std::unique_lock<std::mutex>& lock) {
    for (;;) {
        if (writing_) {
            freed_.wait(lock);
        } else if (freeze_ != 0 && Clock::now() < over_at_) {
            freed_.wait_until(lock, over_at_);
        } else {
            freeze_ = 0;
            return;
        }
    }
}

void FreezeLock::lock() {
    std::unique_lock lock(lock_);
    wait_until_free(lock);
    writing_ = true;
}

void FreezeLock::unlock() {
    const std::lock_guard lock(lock_);
    writing_ = false;
    freed_.notify_all();
}

FreezeLock::Freeze::Freeze(FreezeLock& lock, Clock::duration longest) : lock_(lock) {
    std::unique_lock held(lock_.lock_);
    lock_.wait_until_free(held);
    number_ = lock_.freeze_ = ++lock_.freezes_;
    lock_.over_at_ = Clock::now() + longest;
}

FreezeLock::Freeze::~Freeze() {
    const std::lock_guard held(lock_.lock_);
    if (lock_.freeze_ != number_) return;  // it took too long, and another came after it
    lock_.freeze_ = 0;
    lock_.freed_.notify_all();
}

}  // namespace herald::replicator
