// SPDX-License-Identifier: Apache-2.0
#include "user/agent/freeze.h"

#include <linux/fs.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>

#include "herald/limits.h"
#include "user/agent/guardian_wire.h"
#include "user/agent/unix_socket.h"

namespace herald::agent {
namespace {

using Clock = std::chrono::steady_clock;

// A guardian has nothing else to do: one that does not answer in this time is not well.
constexpr auto kGuardianAnswer = std::chrono::seconds(1);
// Its thaw of a disk that hangs takes as long as the disk does.
constexpr auto kThawLook = std::chrono::hours(1);

std::string label(const MountedFilesystem& filesystem) {
    return fmt::format("{} at {}", filesystem.type, filesystem.mount_point);
}

Result<void> send_request(int socket, GuardianOp op, uint32_t deadline_ms,
                          std::span<const int> fds) {
    GuardianRequest_wire request{kGuardianMagic, kGuardianVersion, uint16_t(op), deadline_ms,
                                 uint32_t(fds.size())};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * HERALD_FREEZE_FILESYSTEMS_MAX)] = {};
    iovec data{&request, sizeof request};
    msghdr message{};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    if (!fds.empty()) {
        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(fds.size_bytes());
        cmsghdr* header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(fds.size_bytes());
        std::memcpy(CMSG_DATA(header), fds.data(), fds.size_bytes());
    }
    ssize_t n;
    do n = ::sendmsg(socket, &message, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n != ssize_t(sizeof request)) return fail_errno(n < 0 ? errno : EIO, "guardian: send");
    return {};
}

Result<GuardianReply_wire> receive_reply(int socket) {
    if (!wait_for(socket, POLLIN, Clock::now() + kGuardianAnswer)) {
        return fail_errno(ETIMEDOUT, "guardian: no answer");
    }
    GuardianReply_wire reply{};
    const ssize_t n = ::recv(socket, &reply, sizeof reply, MSG_DONTWAIT);
    if (n < 0) return fail_errno(errno, "guardian: receive");
    if (n != ssize_t(sizeof reply) || reply.magic != kGuardianMagic ||
        reply.version != kGuardianVersion) {
        return fail(ErrorKind::operator_needed,
                    "guardian: it answers in another version; restart herald-guardian");
    }
    if (reply.error != 0) return fail_errno(int(reply.error), "guardian: refused");
    return reply;
}

Result<Fd> open_mount(const MountedFilesystem& filesystem) {
    auto fd = open_file(filesystem.mount_point, O_RDONLY | O_NONBLOCK | O_NOCTTY);
    if (!fd) return pass(fd, "freeze " + label(filesystem));
    struct stat st {};
    if (::fstat(fd->get(), &st) != 0) return fail_errno(errno, "freeze " + label(filesystem));
    // btrfs shows a device of each subvolume here, so it cannot be compared.
    if (major(filesystem.device) != 0 && st.st_dev != filesystem.device) {
        return fail(ErrorKind::retry,
                    "freeze {}: another filesystem is mounted there now; look for mounts again",
                    label(filesystem));
    }
    return fd;
}

}  // namespace

struct Frozen::State {
    struct One {
        MountedFilesystem filesystem;
        Fd fd;
        bool frozen = false;
    };
    std::vector<One> all;
    Fd guardian;  // none when there is nothing to freeze
    Clock::time_point began;
    Clock::time_point deadline;  // never later than the guardian's own
    bool thawed = false;

    Thawed thaw();
};

Thawed Frozen::State::thaw() {
    Thawed report;
    if (thawed) return report;
    thawed = true;
    const auto expire = [&report](std::string cause) {
        if (!report.expired) report.cause = std::move(cause);
        report.expired = true;
    };
    if (!all.empty() && Clock::now() >= deadline) {
        expire("the freeze took longer than its deadline");
    }
    // The bottom of the stack first: thawing writes a superblock, which a frozen one below blocks.
    for (auto one = all.rbegin(); one != all.rend(); ++one) {
        if (!one->frozen) continue;
        int rc;
        do rc = ::ioctl(one->fd.get(), FITHAW, 0);
        while (rc != 0 && errno == EINTR);
        if (rc != 0 && errno == EINVAL) {
            expire(label(one->filesystem) + " was thawed before the point was complete");
        } else if (rc != 0) {
            // The guardian tries again when the connection closes below without a disarm.
            expire(fmt::format("{} could not be thawed: {}", label(one->filesystem),
                               errno_text(errno)));
            guardian.reset();
        }
        one->frozen = false;
    }
    report.frozen = Clock::now() - began;
    if (guardian) {
        auto sent = send_request(guardian.get(), GuardianOp::disarm, 0, {});
        auto reply = sent ? receive_reply(guardian.get()) : Result<GuardianReply_wire>(pass(sent));
        if (!reply) {
            // Each FITHAW above found its filesystem frozen, so nobody had thawed it before.
            report.guardian_lost = true;
        } else if (reply->fired) {
            expire("the guardian thawed at the deadline");
        }
        guardian.reset();
    }
    return report;
}

Frozen::Frozen(std::unique_ptr<State> state) : state_(std::move(state)) {}
Frozen::Frozen(Frozen&&) noexcept = default;

Frozen& Frozen::operator=(Frozen&& other) noexcept {
    if (this != &other) {
        if (state_) (void)state_->thaw();
        state_ = std::move(other.state_);
    }
    return *this;
}

Frozen::~Frozen() {
    if (state_) (void)state_->thaw();
}

Thawed Frozen::thaw() {
    HERALD_ASSERT(state_ && !state_->thawed);
    return state_->thaw();
}

void Frozen::leave_to_guardian() {
    HERALD_ASSERT(state_ && !state_->thawed);
    if (!state_->guardian) return (void)state_->thaw();
    auto sent = send_request(state_->guardian.get(), GuardianOp::probe, 0, {});
    auto reply =
        sent ? receive_reply(state_->guardian.get()) : Result<GuardianReply_wire>(pass(sent));
    if (!reply) return (void)state_->thaw();
    // Without a disarm: it thaws, tells what came of it in its own log, and answers. One that dies
    // before that may have left something frozen.
    if (::shutdown(state_->guardian.get(), SHUT_WR) != 0) return (void)state_->thaw();
    while (!wait_for(state_->guardian.get(), POLLIN, Clock::now() + kThawLook)) {
    }
    if (!receive_reply(state_->guardian.get())) return (void)state_->thaw();
    state_->thawed = true;
    state_->guardian.reset();
}

std::chrono::nanoseconds Frozen::remaining() const {
    HERALD_ASSERT(state_);
    return state_->deadline - Clock::now();
}

Freezer::Freezer(std::filesystem::path guardian_socket)
    : guardian_socket_(std::move(guardian_socket)) {}

namespace {

Result<Fd> connect_guardian(const std::filesystem::path& socket) {
    auto fd = connect_unix(socket, SOCK_SEQPACKET);
    if (!fd) {
        return fail(ErrorKind::operator_needed,
                    "no guardian answers, and without one nothing is frozen ({}): systemctl start "
                    "herald-guardian",
                    fd.error().message);
    }
    return fd;
}

}  // namespace

Result<Frozen> Freezer::freeze(std::span<const MountedFilesystem> filesystems,
                               std::chrono::milliseconds deadline) const {
    auto state = std::make_unique<Frozen::State>();
    state->began = Clock::now();
    state->deadline = state->began + deadline;
    if (filesystems.empty()) return Frozen(std::move(state));
    if (filesystems.size() > HERALD_FREEZE_FILESYSTEMS_MAX) {
        return fail(
            ErrorKind::operator_needed,
            "freeze: {} filesystems are on the disk; at most {} can be frozen for one point",
            filesystems.size(), HERALD_FREEZE_FILESYSTEMS_MAX);
    }
    if (deadline.count() <= 0 || deadline.count() > HERALD_GUARDIAN_DEADLINE_MS_MAX) {
        return fail(ErrorKind::operator_needed, "freeze: a deadline is 1 to {} ms, not {}",
                    HERALD_GUARDIAN_DEADLINE_MS_MAX, deadline.count());
    }
    std::vector<int> fds;
    for (const MountedFilesystem& filesystem : filesystems) {
        auto fd = open_mount(filesystem);
        if (!fd) return pass(fd);
        fds.push_back(fd->get());
        state->all.push_back({filesystem, std::move(*fd), false});
    }
    auto guardian = connect_guardian(guardian_socket_);
    if (!guardian) return pass(guardian);
    state->guardian = std::move(*guardian);
    // Counted from when the guardian reads it, so its deadline is after ours, never before.
    auto armed =
        send_request(state->guardian.get(), GuardianOp::arm, uint32_t(deadline.count()), fds);
    if (!armed) return pass(armed);
    auto reply = receive_reply(state->guardian.get());
    if (!reply) return pass(reply);

    // From here on Frozen's destructor thaws what is frozen, on every way out.
    Frozen frozen(std::move(state));
    Frozen::State& now = *frozen.state_;
    now.began = Clock::now();
    for (Frozen::State::One& one : now.all) {
        const std::string what = "freeze " + label(one.filesystem);
        if (Clock::now() >= now.deadline) {
            return fail(ErrorKind::retry, "{}: no time was left before the deadline of {} ms", what,
                        deadline.count());
        }
        int rc;
        do rc = ::ioctl(one.fd.get(), FIFREEZE, 0);
        while (rc != 0 && errno == EINTR);
        if (rc != 0 && errno == EBUSY) {
            return fail(ErrorKind::retry,
                        "{}: another program has frozen it already; if that program is gone, thaw "
                        "it with: fsfreeze --unfreeze {}",
                        what, one.filesystem.mount_point);
        }
        if (rc != 0 && errno == EOPNOTSUPP) {
            return fail(ErrorKind::operator_needed,
                        "{}: this type of filesystem cannot be frozen; unmount it or mount it "
                        "read-only for exact points",
                        what);
        }
        if (rc != 0) return fail_errno(errno, what);
        one.frozen = true;
        // The guardian may have thawed while this call was under way, and then this one after it.
        if (Clock::now() >= now.deadline) {
            return fail(ErrorKind::retry, "{}: flushing it took longer than the deadline of {} ms",
                        what, deadline.count());
        }
    }
    return frozen;
}

Result<void> Freezer::probe() const {
    auto guardian = connect_guardian(guardian_socket_);
    if (!guardian) return pass(guardian);
    auto sent = send_request(guardian->get(), GuardianOp::probe, 0, {});
    if (!sent) return sent;
    auto reply = receive_reply(guardian->get());
    if (!reply) return pass(reply);
    return {};
}

Result<void> sync_filesystems(std::span<const MountedFilesystem> filesystems) {
    for (const MountedFilesystem& filesystem : filesystems) {
        auto fd = open_mount(filesystem);
        if (!fd) return pass(fd);
        if (::syncfs(fd->get()) != 0) return fail_errno(errno, "syncfs " + label(filesystem));
    }
    return {};
}

}  // namespace herald::agent
