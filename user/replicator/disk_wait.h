// SPDX-License-Identifier: Apache-2.0
// DiskWait says since when a thread has been waiting for its disk, to those who wait for the
// thread: a disk that hangs answers nothing, and no read that the kernel has can be called off.
// Callers: DiskWait::Mark from the thread, the rest from any; takes a leaf lock only.
#pragma once

#include <chrono>
#include <mutex>
#include <optional>
#include <string>

namespace herald::replicator {

// Longer than a disk that recovers a bad sector usually takes.
constexpr std::chrono::seconds kDiskAnswerMax{10};
// Gigabytes of a filesystem's dirty pages: a disk that works takes its time for them.
constexpr std::chrono::seconds kWriteBackMax{60};
// What is looked at for a point: every loop device and mount of the host, not the disk alone.
constexpr char kHostDevices[] = "a device or mount that was looked at for a point";

class DiskWait {
  public:
    using Clock = std::chrono::steady_clock;

    // Around one call that may wait for the disk, or for what else there is to look at. Not nested.
    class Mark {
      public:
        explicit Mark(DiskWait& wait, Clock::duration patience = kDiskAnswerMax,
                      const char* what = "the disk")
            : wait_(wait) {
            wait_.set(Call{Clock::now(), patience, what});
        }
        Mark(const Mark&) = delete;
        Mark& operator=(const Mark&) = delete;
        ~Mark() { wait_.set(std::nullopt); }

      private:
        DiskWait& wait_;
    };

    struct Call {
        Clock::time_point since;
        Clock::duration patience;  // a disk that works answers within it
        const char* what;          // does not answer
    };
    struct Silence {
        std::string what;
        std::chrono::seconds since{0};
    };
    // Nothing: it does not wait for the disk.
    std::optional<Call> call() const {
        const std::lock_guard lock(lock_);
        return call_;
    }
    // What has not answered, and for how long; nothing while a disk that works may take as long.
    std::optional<Silence> silent() const {
        const auto waits = call();
        if (!waits) return std::nullopt;
        const auto waited = Clock::now() - waits->since;
        if (waited < waits->patience) return std::nullopt;
        return Silence{waits->what, std::chrono::duration_cast<std::chrono::seconds>(waited)};
    }

  private:
    void set(std::optional<Call> call) {
        const std::lock_guard lock(lock_);
        call_ = call;
    }

    mutable std::mutex lock_;
    std::optional<Call> call_;
};

}  // namespace herald::replicator
