// SPDX-License-Identifier: Apache-2.0
// Linux native asynchronous I/O. It reports some errors from io_submit itself (a bad descriptor, a
// misaligned request): here they become that request's completion, as in the other engines.
#include <libaio.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <deque>
#include <vector>

#include "user/base/io_engines.h"

namespace herald {
namespace {

class LibaioEngine final : public IoEngine {
  public:
    LibaioEngine(int fd, size_t depth) : fd_(fd), depth_(depth), blocks_(depth), events_(depth) {
        for (iocb& block : blocks_) free_.push_back(&block);
    }
    LibaioEngine(const LibaioEngine&) = delete;
    LibaioEngine& operator=(const LibaioEngine&) = delete;

    // io_destroy waits for what is in flight, so no buffer is written after it.
    ~LibaioEngine() override {
        if (context_) io_destroy(context_);
    }

    Result<void> start() {
        const int rc = io_setup(int(depth_), &context_);
        if (rc < 0) {
            context_ = nullptr;
            return refused("io_setup", -rc);
        }
        // A round trip that touches nothing: no bytes from the descriptor we were given. EBADF
        // (write-only) still shows that the calls work.
        iocb block{};
        iocb* list[1] = {&block};
        std::byte nothing{};
        io_prep_pread(&block, fd_, &nothing, 0, 0);
        const int submitted = io_submit(context_, 1, list);
        if (submitted == -ENOSYS || submitted == -EPERM || submitted == -EACCES) {
            return refused("io_submit", -submitted);
        }
        if (submitted == 1) {
            io_event event{};
            int got;
            do got = io_getevents(context_, 1, 1, &event, nullptr);
            while (got == -EINTR);
            if (got != 1) return refused("io_getevents", got < 0 ? -got : EIO);
        }
        return {};
    }

    Result<size_t> submit(std::span<const IoRequest> requests) override {
        const size_t room = std::min(requests.size(), depth_ - in_flight());
        std::vector<iocb*> list(room);
        for (size_t i = 0; i < room; ++i) {
            list[i] = free_[free_.size() - 1 - i];
            prepare(list[i], requests[i]);
        }
        size_t taken = 0;
        while (taken < room) {
            const int rc = io_submit(context_, long(room - taken), list.data() + taken);
            if (rc > 0) {
                taken += size_t(rc);
                with_kernel_ += size_t(rc);
                free_.resize(free_.size() - size_t(rc));
                continue;
            }
            if (rc == -EINTR) continue;
            if (rc == 0 || rc == -EAGAIN) {
                if (taken > 0 || in_flight() > 0) break;
                // The kernel has no room for even one and nothing of ours will make room.
                done_.push_back({requests[taken].cookie, do_io_now(fd_, requests[taken])});
                ++taken;
                break;
            }
            // The first of the list is refused: its completion, not the engine's failure. Kernels
            // before 4.18 refuse a sync this way.
            const IoRequest& request = requests[taken];
            const bool sync_by_hand = rc == -EINVAL && request.op == IoOp::sync;
            done_.push_back({request.cookie, sync_by_hand ? do_io_now(fd_, request) : int32_t(rc)});
            // Its block goes unused: swap it below the rest, which are taken from the end.
            std::rotate(free_.end() - long(room - taken), free_.end() - 1, free_.end());
            ++taken;
        }
        return taken;
    }

    Result<size_t> wait_until(std::span<IoCompletion> to, size_t at_least,
                              Clock::time_point until) override {
        HERALD_ASSERT(at_least <= in_flight() && at_least <= to.size());
        size_t count = 0;
        while (count < to.size() && !done_.empty()) {
            to[count++] = done_.front();
            done_.pop_front();
        }
        if (count == to.size() || with_kernel_ == 0) return count;
        const size_t still = at_least > count ? at_least - count : 0;
        const size_t most = std::min(to.size() - count, with_kernel_);
        const bool for_ever = still > 0 && until == Clock::time_point::max();
        int got;
        do {
            const auto left = still > 0 && !for_ever ? until - Clock::now() : Clock::duration(0);
            const auto ns = std::max<int64_t>(0, std::chrono::nanoseconds(left).count());
            timespec longest{time_t(ns / 1'000'000'000), long(ns % 1'000'000'000)};
            got = io_getevents(context_, long(still), long(most), events_.data(),
                               for_ever ? nullptr : &longest);
        } while (got == -EINTR);
        if (got < 0) return fail_errno(-got, "libaio: wait for completions");
        for (int i = 0; i < got; ++i) {
            const io_event& event = events_[size_t(i)];
            to[count++] = {uint64_t(reinterpret_cast<uintptr_t>(event.data)), int32_t(event.res)};
            free_.push_back(event.obj);
        }
        with_kernel_ -= size_t(got);
        return count;
    }

    size_t in_flight() const override { return with_kernel_ + done_.size(); }
    size_t depth() const override { return depth_; }
    IoEngineKind kind() const override { return IoEngineKind::libaio; }

  private:
    static tl::unexpected<Error> refused(std::string_view what, int err) {
        auto error = fail_errno(err, fmt::format("libaio cannot be used here: {}", what));
        error.value().kind = ErrorKind::operator_needed;
        return error;
    }

    void prepare(iocb* block, const IoRequest& request) {
        HERALD_ASSERT(request.buffer.size() <= INT_MAX);
        void* data = request.buffer.data();
        switch (request.op) {
            case IoOp::read:
                io_prep_pread(block, fd_, data, request.buffer.size(),
                              static_cast<long long>(request.offset));
                break;
            case IoOp::write:
                io_prep_pwrite(block, fd_, data, request.buffer.size(),
                               static_cast<long long>(request.offset));
                break;
            case IoOp::sync:
                io_prep_fdsync(block, fd_);
                break;
        }
        // io_prep_* clear the block, so the cookie comes last.
        block->data = reinterpret_cast<void*>(uintptr_t(request.cookie));
    }

    int fd_;
    size_t depth_;
    size_t with_kernel_ = 0;
    io_context_t context_ = nullptr;
    std::vector<iocb> blocks_;
    std::vector<iocb*> free_;
    std::vector<io_event> events_;
    std::deque<IoCompletion> done_;  // completed without the kernel's queue
};

}  // namespace

Result<std::unique_ptr<IoEngine>> make_libaio_engine(int fd, size_t depth) {
    auto engine = std::make_unique<LibaioEngine>(fd, depth);
    auto started = engine->start();
    if (!started) return pass(started);
    return engine;
}

}  // namespace herald
