// SPDX-License-Identifier: Apache-2.0
// io_uring: one ring for each engine, filled and reaped by one thread. A request counts as taken
// once it has an entry in the submission queue; entries the kernel did not take at once (it may
// say EAGAIN, EBUSY or take only some) are offered again by the next submit() or wait().
#include <liburing.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>

#include "user/base/io_engines.h"

namespace herald {
namespace {

class UringEngine final : public IoEngine {
  public:
    UringEngine(int fd, size_t depth) : fd_(fd), depth_(depth) {}
    UringEngine(const UringEngine&) = delete;
    UringEngine& operator=(const UringEngine&) = delete;

    ~UringEngine() override {
        if (!ready_) return;
        // The kernel may still write into the callers' buffers: leave only when it cannot.
        IoCompletion ignored[64];
        while (in_flight_ > 0) {
            auto got = wait(ignored, 1);
            if (!got) break;
        }
        io_uring_queue_exit(&ring_);
    }

    Result<void> start() {
        int rc = io_uring_queue_init(unsigned(depth_), &ring_, 0);
        if (rc < 0) return refused("io_uring_setup", -rc);
        ready_ = true;
        io_uring_probe* probe = io_uring_get_probe_ring(&ring_);
        const bool able = probe && io_uring_opcode_supported(probe, IORING_OP_READ) &&
                          io_uring_opcode_supported(probe, IORING_OP_WRITE) &&
                          io_uring_opcode_supported(probe, IORING_OP_FSYNC);
        if (probe) io_uring_free_probe(probe);
        if (!able) return refused("read and write operations", EOPNOTSUPP);
        // A round trip: a sandbox may allow the setup and refuse io_uring_enter.
        io_uring_prep_nop(io_uring_get_sqe(&ring_));
        do rc = io_uring_submit_and_wait(&ring_, 1);
        while (rc == -EINTR);
        io_uring_cqe* cqe = nullptr;
        if (rc >= 0) rc = io_uring_peek_cqe(&ring_, &cqe);
        if (rc < 0) return refused("io_uring_enter", -rc);
        io_uring_cqe_seen(&ring_, cqe);
        return {};
    }

    Result<size_t> submit(std::span<const IoRequest> requests) override {
        size_t taken = 0;
        while (taken < requests.size() && in_flight_ < depth_) {
            io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
            if (!sqe) break;
            prepare(sqe, requests[taken++]);
            ++in_flight_;
        }
        auto offered = offer();
        if (!offered) return pass(offered);
        return taken;
    }

    Result<size_t> wait_until(std::span<IoCompletion> to, size_t at_least,
                              Clock::time_point until) override {
        HERALD_ASSERT(at_least <= in_flight_ && at_least <= to.size());
        auto offered = offer();
        if (!offered) return pass(offered);
        size_t count = reap(to);
        while (count < at_least) {
            const bool for_ever = until == Clock::time_point::max();
            if (!for_ever && Clock::now() >= until) return count;
            if (in_flight_ == io_uring_sq_ready(&ring_)) {
                // Nothing is with the kernel: it has no memory for even one. Give it a moment.
                ::usleep(1000);
            } else if (!for_ever) {
                const auto left =
                    std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now());
                pollfd ready{ring_.ring_fd, POLLIN, 0};
                const int rc =
                    ::poll(&ready, 1, int(std::clamp<int64_t>(left.count(), 0, INT_MAX)));
                if (rc < 0 && errno != EINTR) {
                    return fail_errno(errno, "io_uring: wait for completions");
                }
            } else {
                io_uring_cqe* cqe = nullptr;
                const int rc = io_uring_wait_cqe(&ring_, &cqe);
                if (rc < 0 && rc != -EINTR && rc != -EAGAIN) {
                    return fail_errno(-rc, "io_uring: wait for completions");
                }
            }
            offered = offer();
            if (!offered) return pass(offered);
            count += reap(to.subspan(count));
        }
        return count;
    }

    size_t in_flight() const override { return in_flight_; }
    size_t depth() const override { return depth_; }
    IoEngineKind kind() const override { return IoEngineKind::io_uring; }

  private:
    static tl::unexpected<Error> refused(std::string_view what, int err) {
        auto error = fail_errno(err, fmt::format("io_uring cannot be used here: {}", what));
        error.value().kind = ErrorKind::operator_needed;
        return error;
    }

    void prepare(io_uring_sqe* sqe, const IoRequest& request) {
        HERALD_ASSERT(request.buffer.size() <= INT_MAX);
        const auto bytes = unsigned(request.buffer.size());
        switch (request.op) {
            case IoOp::read:
                io_uring_prep_read(sqe, fd_, request.buffer.data(), bytes, request.offset);
                break;
            case IoOp::write:
                io_uring_prep_write(sqe, fd_, request.buffer.data(), bytes, request.offset);
                break;
            case IoOp::sync:
                io_uring_prep_fsync(sqe, fd_, IORING_FSYNC_DATASYNC);
                break;
        }
        sqe->user_data = request.cookie;
    }

    // Hands prepared entries to the kernel, as many as it takes now.
    Result<void> offer() {
        while (io_uring_sq_ready(&ring_) > 0) {
            const int rc = io_uring_submit(&ring_);
            if (rc == -EINTR) continue;
            if (rc == 0 || rc == -EAGAIN || rc == -EBUSY) return {};
            if (rc < 0) return fail_errno(-rc, "io_uring: submit requests");
        }
        return {};
    }

    size_t reap(std::span<IoCompletion> to) {
        size_t count = 0;
        io_uring_cqe* cqe = nullptr;
        while (count < to.size() && io_uring_peek_cqe(&ring_, &cqe) == 0 && cqe) {
            to[count++] = {cqe->user_data, cqe->res};
            io_uring_cqe_seen(&ring_, cqe);
            --in_flight_;
        }
        return count;
    }

    int fd_;
    size_t depth_;
    size_t in_flight_ = 0;  // taken and not reaped, whether the kernel has them yet or not
    bool ready_ = false;
    io_uring ring_{};
};

}  // namespace

Result<std::unique_ptr<IoEngine>> make_io_uring_engine(int fd, size_t depth) {
    auto engine = std::make_unique<UringEngine>(fd, depth);
    auto started = engine->start();
    if (!started) return pass(started);
    return engine;
}

}  // namespace herald
