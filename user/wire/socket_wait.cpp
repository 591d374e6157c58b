// SPDX-License-Identifier: Apache-2.0
#include "user/wire/socket_wait.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <thread>
#include <vector>

namespace herald::wire {
namespace {

constexpr size_t kAddressesMax = 8;

int milliseconds_until(SocketWait::Clock::time_point deadline) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - SocketWait::Clock::now());
    return int(std::clamp<int64_t>(left.count(), 0, 1 << 30));
}

struct Address {
    sockaddr_storage storage{};
    socklen_t bytes = 0;
};

Result<std::vector<Address>> resolve(const std::string& host, uint16_t port, int flags) {
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = flags | AI_NUMERICSERV;
    addrinfo* list = nullptr;
    const int error = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &list);
    if (error == EAI_NONAME) return fail(ErrorKind::operator_needed, "no such host: '{}'", host);
    if (error) return fail(ErrorKind::retry, "looking up '{}': {}", host, ::gai_strerror(error));
    std::vector<Address> addresses;
    for (const addrinfo* at = list; at && addresses.size() < kAddressesMax; at = at->ai_next) {
        if (at->ai_addrlen > sizeof(sockaddr_storage)) continue;
        Address address;
        std::memcpy(&address.storage, at->ai_addr, at->ai_addrlen);
        address.bytes = at->ai_addrlen;
        addresses.push_back(address);
    }
    ::freeaddrinfo(list);
    return addresses;
}

Result<Fd> connect_one(const Address& address, const SocketWait& wait,
                       SocketWait::Clock::time_point deadline) {
    Fd fd(::socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd) return fail_errno(errno, "socket");
    const int on = 1;
    ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    int error = 0;
    if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address.storage), address.bytes)) {
        error = errno;
        if (error == EINPROGRESS) {
            auto ready = wait.wait(fd.get(), POLLOUT, deadline, "connecting");
            if (!ready) return pass(ready);
            socklen_t bytes = sizeof error;
            ::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &bytes);
        }
    }
    if (!error) return fd;
    auto failed = fail_errno(error, "connecting");
    failed.value().kind = ErrorKind::retry;  // routes and servers come back
    return failed;
}

}  // namespace

SocketWait::SocketWait() : event_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

void SocketWait::trip() {
    tripped_.store(true, std::memory_order_release);
    const uint64_t one = 1;
    // Never read again, so it stays readable; a full counter is readable as well.
    (void)!::write(event_.get(), &one, sizeof one);
}

Result<short> SocketWait::wait(int fd, short events, Clock::time_point deadline,
                               const char* doing) const {
    for (;;) {
        if (tripped()) return fail(ErrorKind::retry, "{}: stopped on request", doing);
        pollfd fds[2] = {{fd, events, 0}, {event_.get(), POLLIN, 0}};
        const int timeout = milliseconds_until(deadline);
        const int ready = ::poll(fds, 2, timeout);
        if (ready < 0 && errno != EINTR) return fail_errno(errno, "poll");
        if (fds[1].revents) continue;
        if (ready > 0 && fds[0].revents) return fds[0].revents;
        if (timeout == 0) return fail(ErrorKind::retry, "{}: no progress by the deadline", doing);
    }
}

// Shared with the thread, which may outlive the Connector.
struct Connector::Lookup {
    Fd done{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    std::atomic<bool> finished{false};  // release by the thread; pairs with the acquire below
    Result<std::vector<Address>> addresses = std::vector<Address>{};
};

Result<Fd> Connector::connect(const std::string& host, uint16_t port, const SocketWait& wait,
                              SocketWait::Clock::time_point deadline) {
    auto addresses = resolve(host, port, AI_NUMERICHOST);
    if (!addresses) {
        if (!lookup_) {
            lookup_ = std::make_shared<Lookup>();
            std::thread([lookup = lookup_, host, port] {
                lookup->addresses = resolve(host, port, AI_ADDRCONFIG);
                lookup->finished.store(true, std::memory_order_release);
                const uint64_t one = 1;
                (void)!::write(lookup->done.get(), &one, sizeof one);
            }).detach();
        }
        auto ready = wait.wait(lookup_->done.get(), POLLIN, deadline, "looking up the host name");
        if (!ready) return pass(ready);
        const auto finished = std::exchange(lookup_, nullptr);
        if (!finished->finished.load(std::memory_order_acquire))
            return fail(ErrorKind::retry, "looking up '{}': not finished", host);
        addresses = std::move(finished->addresses);
        if (!addresses) return pass(addresses);
    }
    Result<Fd> connected = fail(ErrorKind::operator_needed, "'{}' has no address", host);
    size_t left = addresses->size();
    for (const Address& address : *addresses) {
        // An address that swallows packets must leave time for the others.
        const auto now = SocketWait::Clock::now();
        connected = connect_one(address, wait, now + (deadline - now) / int(left--));
        if (connected || wait.tripped()) break;
    }
    return connected;
}

}  // namespace herald::wire
