// SPDX-License-Identifier: Apache-2.0
// FreezeLock keeps freezes and writes of state files apart: one freeze at a time, and no file is
// written during one, because it may lie on the frozen filesystem.
// Promise: a disk that hangs in its freeze holds up nobody for longer than the freeze may last: by
// then the guardian has thawed, and the others go on as if it had ended. A freeze waits for a write
// that hangs until a time that its caller says, and is refused then.
// Callers: any thread. Writers use it as a mutex; a freeze is a FreezeLock::Freeze.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace herald::replicator {

class FreezeLock {
  public:
    using Clock = std::chrono::steady_clock;

    void lock();
    void unlock();

    class Freeze {
      public:
        // It may last for that long, and begins until then or not at all.
        Freeze(FreezeLock& lock, Clock::duration longest, Clock::time_point until);
        Freeze(const Freeze&) = delete;
        Freeze& operator=(const Freeze&) = delete;
        ~Freeze();
        bool began() const { return number_ != 0; }

      private:
        FreezeLock& lock_;
        uint64_t number_ = 0;
    };

  private:
    bool wait_until_free(std::unique_lock<std::mutex>& lock, Clock::time_point until);

    std::mutex lock_;  // guards all below; a leaf
    std::condition_variable freed_;
    bool writing_ = false;
    uint64_t freeze_ = 0;  // the one under way; 0: none
    uint64_t freezes_ = 0;
    Clock::time_point over_at_{};
};

}  // namespace herald::replicator
