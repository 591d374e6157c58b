// SPDX-License-Identifier: Apache-2.0
// The engine of last resort: each request is done inside submit() by one system call after the
// other. Slow at depth (13 k IOPS where io_uring gives 105 k), and it works everywhere.
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <deque>

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
    PreadEngine(int fd, size_t depth) : fd_(fd), depth_(depth) {}

    Result<size_t> submit(std::span<const IoRequest> requests) override {
        size_t taken = 0;
        while (taken < requests.size() && done_.size() < depth_) {
            const IoRequest& request = requests[taken++];
            done_.push_back({request.cookie, do_io_now(fd_, request)});
        }
        return taken;
    }

    Result<size_t> wait_until(std::span<IoCompletion> to, size_t at_least,
                              Clock::time_point) override {
        HERALD_ASSERT(at_least <= done_.size() && at_least <= to.size());
        size_t count = 0;
        while (count < to.size() && !done_.empty()) {
            to[count++] = done_.front();
            done_.pop_front();
        }
        return count;
    }

    size_t in_flight() const override { return done_.size(); }
    size_t depth() const override { return depth_; }
    IoEngineKind kind() const override { return IoEngineKind::pread; }

  private:
    int fd_;
    size_t depth_;
    std::deque<IoCompletion> done_;  // at most depth_
};

}  // namespace

Result<std::unique_ptr<IoEngine>> make_pread_engine(int fd, size_t depth) {
    return std::make_unique<PreadEngine>(fd, depth);
}

}  // namespace herald
