// SPDX-License-Identifier: Apache-2.0
// DiskWait says since when a thread has been waiting for its disk, to those who wait for the
// thread: a disk that hangs answers nothing, and no read that the kernel has can be called off.
// Callers: DiskWait::Mark from the thread, since() from any.
#pragma once

#include <atomic>
#include <chrono>
#include <optional>

namespace herald::replicator {

class DiskWait {
  public:
    using Clock = std::chrono::steady_clock;

    // Around one call that may wait for the disk. Not nested.
    class Mark {
      public:
        explicit Mark(DiskWait& wait) : wait_(wait) {
            wait_.since_ = Clock::now().time_since_epoch().count();
        }
        Mark(const Mark&) = delete;
        Mark& operator=(const Mark&) = delete;
        ~Mark() { wait_.since_ = 0; }

      private:
        DiskWait& wait_;
    };

    // Nothing: it does not wait for the disk.
    std::optional<Clock::time_point> since() const {
        const Clock::rep since = since_;
        if (since == 0) return std::nullopt;
        return Clock::time_point(Clock::duration(since));
    }

  private:
    std::atomic<Clock::rep> since_{0};
};

}  // namespace herald::replicator
