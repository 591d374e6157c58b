// SPDX-License-Identifier: Apache-2.0
// The engine of last resort: a thread that does one request after the other by plain system calls.
// Slow at depth (13 k IOPS where io_uring gives 105 k), and it works everywhere. A thread, so that
// whoever waits for a disk that hangs need not wait longer than it wants to.
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <system_error>
#include <thread>

#include "user/base/io_engines.h"

namespace herald {

int32_t do_io_now(int fd, const IoRequest& request) {
    HERALD_ASSERT(request.buffer.size() <= INT_MAX);
    if (request.op == IoOp::sync) return ::fdatasync(fd) == 0 ? 0 : -errno;
    size_t done = 0;
    while (done < request.buffer.size()) {
        std::byte* at = request.buffer.data() + done;
        const size_t left = request.buffer.size() - done;
        const off_t offset = off_t(request.offset + done);
        const ssize_t n = request.op == IoOp::read ? ::pread(fd, at, left, offset)
                                                   : ::pwrite(fd, at, left, offset);
        if (n < 0 && errno == EINTR) continue;
        // What was transferred before an error counts, as it does in the other engines.
        if (n < 0) return done > 0 ? int32_t(done) : -errno;
        if (n == 0) break;
        done += size_t(n);
    }
    return int32_t(done);
}

namespace {

class PreadEngine final : public IoEngine {
  public:
    // Throws std::system_error when there is no thread for it.
    PreadEngine(int fd, size_t depth) : fd_(fd), depth_(depth), thread_([this] { run(); }) {}

    // Waits for the request under way; those behind it are not begun.
    ~PreadEngine() override {
        {
            const std::lock_guard lock(lock_);
            ending_ = true;
        }
        changed_.notify_all();
        thread_.join();
    }
    PreadEngine(const PreadEngine&) = delete;
    PreadEngine& operator=(const PreadEngine&) = delete;

    Result<size_t> submit(std::span<const IoRequest> requests) override {
        size_t taken = 0;
        {
            const std::lock_guard lock(lock_);
            while (taken < requests.size() && in_flight_ < depth_) {
                queue_.push_back(requests[taken++]);
                ++in_flight_;
            }
        }
        changed_.notify_all();
        return taken;
    }

    Result<size_t> wait_until(std::span<IoCompletion> to, size_t at_least,
                              Clock::time_point until) override {
        std::unique_lock lock(lock_);
        HERALD_ASSERT(at_least <= in_flight_ && at_least <= to.size());
        const auto enough = [&] { return done_.size() >= at_least; };
        if (until == Clock::time_point::max())
            changed_.wait(lock, enough);
        else
            changed_.wait_until(lock, until, enough);
        size_t count = 0;
        while (count < to.size() && !done_.empty()) {
            to[count++] = done_.front();
            done_.pop_front();
        }
        in_flight_ -= count;
        return count;
    }

    size_t in_flight() const override {
        const std::lock_guard lock(lock_);
        return in_flight_;
    }
    size_t depth() const override { return depth_; }
    IoEngineKind kind() const override { return IoEngineKind::pread; }

  private:
    void run() {
        std::unique_lock lock(lock_);
        for (;;) {
            changed_.wait(lock, [&] { return ending_ || !queue_.empty(); });
            if (ending_) return;
            const IoRequest request = queue_.front();
            queue_.pop_front();
            lock.unlock();
            const int32_t result = do_io_now(fd_, request);
            lock.lock();
            done_.push_back({request.cookie, result});
            changed_.notify_all();
        }
    }

    const int fd_;
    const size_t depth_;
    mutable std::mutex lock_;
    std::condition_variable changed_;
    bool ending_ = false;
    size_t in_flight_ = 0;  // at most depth_: queued, under way and done
    std::deque<IoRequest> queue_;
    std::deque<IoCompletion> done_;
    std::thread thread_;  // the last: it uses all the others
};

}  // namespace

Result<std::unique_ptr<IoEngine>> make_pread_engine(int fd, size_t depth) {
    try {
        return std::make_unique<PreadEngine>(fd, depth);
    } catch (const std::system_error& thrown) {
        return fail(ErrorKind::retry, "no thread for the pread engine: {}", thrown.what());
    }
}

}  // namespace herald
