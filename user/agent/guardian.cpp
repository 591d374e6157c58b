// SPDX-License-Identifier: Apache-2.0
#include "user/agent/guardian.h"

#include <linux/fs.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <system_error>
#include <vector>

#include "herald/limits.h"
#include "user/agent/guardian_wire.h"
#include "user/agent/unix_socket.h"

namespace herald::agent {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kThawAgain = std::chrono::milliseconds(100);

// The descriptors of one freeze, each with a thread that waits to thaw it. Separate threads,
// because a FITHAW may block: behind a FIFREEZE of the same filesystem that has not finished, or
// because a filesystem above cannot write until the one below is thawed.
class Armed {
  public:
    explicit Armed(std::vector<Fd> fds) : fds_(std::move(fds)), frozen_(fds_.size(), false) {}
    Armed(const Armed&) = delete;
    Armed& operator=(const Armed&) = delete;
    ~Armed() {
        order(Order::release);
        for (std::thread& thread : threads_) thread.join();
    }

    // False when there is no room for the threads: then nothing is guarded.
    bool start() {
        try {
            threads_.reserve(fds_.size());
            for (size_t i = 0; i < fds_.size(); ++i) {
                threads_.emplace_back([this, i] { guard(i); });
            }
        } catch (const std::exception&) {
            return false;  // std::thread throws where pthread_create fails
        }
        return true;
    }
    void thaw_until_released() { order(Order::thaw_again); }
    // One thaw of each; returns how many were frozen, over the whole time.
    size_t thaw_once_and_wait() {
        order(Order::thaw_once);
        for (std::thread& thread : threads_) thread.join();
        threads_.clear();
        return thawed();
    }
    size_t thawed() {
        std::lock_guard<std::mutex> guard(lock_);
        return size_t(std::count(frozen_.begin(), frozen_.end(), true));
    }

  private:
    enum class Order { wait, thaw_again, thaw_once, release };

    void order(Order next) {
        {
            std::lock_guard<std::mutex> guard(lock_);
            order_ = next;
        }
        changed_.notify_all();
    }

    void guard(size_t i) {
        std::unique_lock<std::mutex> guard(lock_);
        changed_.wait(guard, [this] { return order_ != Order::wait; });
        for (;;) {
            const Order current = order_;
            if (current == Order::release) return;
            guard.unlock();
            const bool was_frozen = ::ioctl(fds_[i].get(), FITHAW, 0) == 0;  // EINVAL: was not
            guard.lock();
            if (was_frozen) frozen_[i] = true;
            if (current == Order::thaw_once) return;
            changed_.wait_for(guard, kThawAgain, [&] { return order_ != current; });
        }
    }

    std::vector<Fd> fds_;
    std::mutex lock_;  // level 1; guards order_ and frozen_
    std::condition_variable changed_;
    Order order_ = Order::wait;
    std::vector<bool> frozen_;
    std::vector<std::thread> threads_;
};

struct Packet {
    GuardianRequest_wire request{};
    std::vector<Fd> fds;
};

enum class Got { packet, nothing, closed };

Got receive(int socket, Packet& packet) {
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * HERALD_FREEZE_FILESYSTEMS_MAX)];
    iovec data{&packet.request, sizeof packet.request};
    msghdr message{};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    const ssize_t n = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return Got::nothing;
    if (n <= 0) return Got::closed;
    for (cmsghdr* c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
        const size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; ++i) {
            int fd;
            std::memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            packet.fds.emplace_back(fd);
        }
    }
    const bool whole =
        n == sizeof packet.request && !(message.msg_flags & (MSG_TRUNC | MSG_CTRUNC));
    if (!whole) packet.request.magic = 0;  // answered with EPROTO
    return Got::packet;
}

void answer(int socket, uint32_t error, bool fired) {
    const GuardianReply_wire reply{kGuardianMagic, kGuardianVersion, uint16_t(fired), error, 0};
    // A peer that is gone is seen as a closed connection by the next poll.
    (void)::send(socket, &reply, sizeof reply, MSG_NOSIGNAL | MSG_DONTWAIT);
}

}  // namespace

Guardian::Guardian(std::filesystem::path socket, Fd listener, Fd stop, Report report)
    : socket_(std::move(socket)),
      listener_(std::move(listener)),
      stop_(std::move(stop)),
      report_(std::move(report)) {}

Result<std::unique_ptr<Guardian>> Guardian::listen(const std::filesystem::path& socket,
                                                   Report report) {
    auto listener = listen_unix(socket, SOCK_SEQPACKET, HERALD_GUARDIAN_CONNECTIONS_MAX);
    if (!listener) return pass(listener);
    Fd stop(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!stop) return fail_errno(errno, "guardian: eventfd");
    return std::unique_ptr<Guardian>(
        new Guardian(socket, std::move(*listener), std::move(stop), std::move(report)));
}

Guardian::~Guardian() {
    stop();
    join(true);
    ::unlink(socket_.c_str());
}

void Guardian::stop() {
    const uint64_t one = 1;
    [[maybe_unused]] const auto n = ::write(stop_.get(), &one, sizeof one);
}

void Guardian::join(bool all) {
    for (auto it = sessions_.begin(); it != sessions_.end();) {
        if (all || it->finished.load(std::memory_order_acquire)) {  // pairs with accept()'s release
            it->thread.join();
            it = sessions_.erase(it);
        } else {
            ++it;
        }
    }
}

void Guardian::run() {
    for (;;) {
        pollfd polled[2] = {{listener_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
        if (::poll(polled, 2, -1) < 0 && errno != EINTR) break;
        if (polled[1].revents) break;
        Fd connection(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
        if (!connection) {
            if (errno == EMFILE || errno == ENFILE) ::usleep(100000);
            continue;
        }
        join(false);
        accept(std::move(connection));
    }
    join(true);
}

void Guardian::accept(Fd connection) {
    const auto uid = peer_uid(connection.get());
    if (!uid || *uid != ::geteuid()) return answer(connection.get(), EPERM, false);
    if (sessions_.size() >= HERALD_GUARDIAN_CONNECTIONS_MAX) {
        return answer(connection.get(), EBUSY, false);
    }
    // The thread gets a descriptor of its own only once it exists: until then this one can answer.
    auto owned = std::make_shared<Fd>(std::move(connection));
    Session& session = sessions_.emplace_back();
    try {
        session.thread = std::thread([this, &session, owned] {
            serve(std::move(*owned));
            session.finished.store(true, std::memory_order_release);  // pairs with join()
        });
    } catch (const std::system_error&) {
        sessions_.pop_back();
        answer(owned->get(), EAGAIN, false);
    }
}

void Guardian::serve(Fd connection) {
    std::optional<Armed> armed;
    Clock::time_point deadline;
    size_t count = 0;
    bool fired = false;
    const char* cause = "";
    for (;;) {
        int timeout_ms = -1;
        if (armed && !fired) {
            const auto left =
                std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
            timeout_ms = int(std::max<int64_t>(left, 0));
        }
        pollfd polled[2] = {{connection.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
        const int rc = ::poll(polled, 2, timeout_ms);
        if (rc < 0 && errno != EINTR) break;
        // The deadline is looked at first: a disarm that comes after it finds that it is too late.
        if (armed && !fired && Clock::now() >= deadline) {
            fired = true;
            cause = "the deadline passed";
            armed->thaw_until_released();
        }
        if (rc <= 0) continue;
        if (polled[1].revents) {
            cause = "the guardian was stopped";
            break;
        }
        if (!polled[0].revents) continue;
        Packet packet;
        const Got got = receive(connection.get(), packet);
        if (got == Got::nothing) continue;
        if (got == Got::closed) break;
        const GuardianRequest_wire& request = packet.request;
        const auto op = GuardianOp(request.op);
        if (request.magic != kGuardianMagic || request.version != kGuardianVersion) {
            answer(connection.get(), EPROTO, fired);
        } else if (op == GuardianOp::probe) {
            answer(connection.get(), 0, fired);
        } else if (op == GuardianOp::arm) {
            if (armed || packet.fds.empty() || packet.fds.size() != request.count ||
                request.deadline_ms == 0 || request.deadline_ms > HERALD_GUARDIAN_DEADLINE_MS_MAX) {
                answer(connection.get(), EINVAL, fired);
                continue;
            }
            deadline = Clock::now() + std::chrono::milliseconds(request.deadline_ms);
            count = packet.fds.size();
            armed.emplace(std::move(packet.fds));
            cause = "its replicator went away";
            const bool started = armed->start();
            if (!started) armed.reset();
            answer(connection.get(), started ? 0 : EAGAIN, false);
        } else if (op == GuardianOp::disarm && armed) {
            const size_t thawed = armed->thawed();
            // Answered first: ending a thread that is inside a FITHAW may take a while.
            answer(connection.get(), 0, fired);
            armed.reset();
            if (fired)
                report_(fmt::format("thawed {} of {} filesystems: {}", thawed, count, cause));
            fired = false;
        } else {
            answer(connection.get(), EINVAL, fired);
        }
    }
    if (armed) {
        const size_t thawed = armed->thaw_once_and_wait();
        answer(connection.get(), 0, true);
        report_(fmt::format("thawed {} of {} filesystems: {}", thawed, count, cause));
    }
}

}  // namespace herald::agent
