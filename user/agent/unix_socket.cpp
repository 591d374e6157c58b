// SPDX-License-Identifier: Apache-2.0
#include "user/agent/unix_socket.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>

namespace herald::agent {
namespace {

Result<sockaddr_un> address_of(const std::filesystem::path& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string& name = path.native();
    if (name.empty() || name.size() >= sizeof address.sun_path) {
        return fail(ErrorKind::operator_needed,
                    "socket {}: a socket's path has 1 to {} bytes; choose a shorter one", name,
                    sizeof address.sun_path - 1);
    }
    std::copy(name.begin(), name.end(), address.sun_path);
    return address;
}

const sockaddr* generic(const sockaddr_un& address) {
    return reinterpret_cast<const sockaddr*>(&address);
}

}  // namespace

Result<Fd> listen_unix(const std::filesystem::path& path, int type, int backlog) {
    auto address = address_of(path);
    if (!address) return pass(address);
    if (auto other = connect_unix(path, type)) {
        return fail(ErrorKind::operator_needed, "socket {}: another process listens there already",
                    path.native());
    }
    struct stat st {};
    if (::lstat(path.c_str(), &st) == 0) {
        if (!S_ISSOCK(st.st_mode)) {
            return fail(ErrorKind::operator_needed, "socket {}: a file that is no socket is there",
                        path.native());
        }
        ::unlink(path.c_str());
    }
    Fd fd(::socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd) return fail_errno(errno, fmt::format("socket {}", path.native()));
    // The mode of an unbound socket becomes its file's: nobody else can connect before a chmod.
    if (::fchmod(fd.get(), 0600) != 0) {
        return fail_errno(errno, fmt::format("socket {}: chmod", path.native()));
    }
    if (::bind(fd.get(), generic(*address), sizeof *address) != 0) {
        return fail_errno(errno, fmt::format("socket {}: bind", path.native()));
    }
    if (::chmod(path.c_str(), 0600) != 0 || ::listen(fd.get(), backlog) != 0) {
        return fail_errno(errno, fmt::format("socket {}: listen", path.native()));
    }
    return fd;
}

Result<Fd> connect_unix(const std::filesystem::path& path, int type) {
    auto address = address_of(path);
    if (!address) return pass(address);
    Fd fd(::socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
    if (!fd) return fail_errno(errno, fmt::format("socket {}", path.native()));
    int rc;
    do rc = ::connect(fd.get(), generic(*address), sizeof *address);
    while (rc != 0 && errno == EINTR);
    if (rc != 0) return fail_errno(errno, fmt::format("connect to {}", path.native()));
    return fd;
}

std::optional<uid_t> peer_uid(int socket) {
    ucred peer{};
    socklen_t size = sizeof peer;
    if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return std::nullopt;
    return peer.uid;
}

bool wait_for(int fd, short events, std::chrono::steady_clock::time_point deadline) {
    for (;;) {
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(
            deadline - std::chrono::steady_clock::now());
        const auto ms = std::clamp<int64_t>(left.count(), 0, INT_MAX);
        pollfd polled{fd, events, 0};
        const int rc = ::poll(&polled, 1, int(ms));
        if (rc > 0) return true;
        if (rc == 0 && ms < INT_MAX) return false;
        if (rc < 0 && errno != EINTR) return true;  // let the read or write say what is wrong
    }
}

}  // namespace herald::agent
