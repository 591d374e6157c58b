// SPDX-License-Identifier: Apache-2.0
#include "user/agent/control.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <list>
#include <mutex>
#include <system_error>
#include <thread>

#include "herald/limits.h"
#include "user/agent/unix_socket.h"

namespace herald::agent {
namespace {

using Clock = std::chrono::steady_clock;

// A peer that does not read an answer for this long is treated as gone.
constexpr auto kSendTimeout = std::chrono::seconds(5);
constexpr auto kStopLook = std::chrono::milliseconds(5);

nlohmann::json error_json(const Error& error) {
    return {{"error", {{"kind", to_string(error.kind)}, {"message", error.message}}}};
}

}  // namespace

ControlConnection::ControlConnection(Fd socket, size_t line_bytes_max)
    : socket_(std::move(socket)), line_bytes_max_(line_bytes_max) {}

Result<void> ControlConnection::send(const nlohmann::json& message) {
    // Names of disks and files may hold any bytes: replace what is not UTF-8 rather than throw.
    const std::string line =
        message.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
    const auto deadline = Clock::now() + kSendTimeout;
    size_t sent = 0;
    while (sent < line.size()) {
        const ssize_t n = ::send(socket_.get(), line.data() + sent, line.size() - sent,
                                 MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0) {
            sent += size_t(n);
            continue;
        }
        if (errno == EINTR) continue;
        if (errno != EAGAIN) return fail_errno(errno, "control connection: send");
        if (!wait_for(socket_.get(), POLLOUT, deadline)) {
            return fail_errno(ETIMEDOUT, "control connection: the peer does not read");
        }
    }
    return {};
}

Result<void> ControlConnection::send_error(const Error& error) { return send(error_json(error)); }

Result<Received> ControlConnection::receive(nlohmann::json& to, std::chrono::milliseconds timeout) {
    // Bounded so that "for ever" does not overflow the clock.
    const auto deadline =
        Clock::now() + std::min<std::chrono::milliseconds>(timeout, std::chrono::hours(24 * 365));
    size_t searched = 0;
    for (;;) {
        const size_t end = buffer_.find('\n', searched);
        if (end != std::string::npos && end <= line_bytes_max_) {
            to =
                nlohmann::json::parse(buffer_.begin(), buffer_.begin() + long(end), nullptr, false);
            buffer_.erase(0, end + 1);
            if (to.is_discarded() || !to.is_object()) {
                return fail(ErrorKind::operator_needed,
                            "control connection: a line is not a JSON object");
            }
            return Received::message;
        }
        if (buffer_.size() > line_bytes_max_) {
            return fail(ErrorKind::operator_needed,
                        "control connection: a line is longer than {} bytes", line_bytes_max_);
        }
        searched = buffer_.size();
        if (!wait_for(socket_.get(), POLLIN, deadline)) return Received::timeout;
        char chunk[16384];
        const ssize_t n = ::recv(socket_.get(), chunk, sizeof chunk, MSG_DONTWAIT);
        if (n > 0) {
            buffer_.append(chunk, size_t(n));
        } else if (n == 0 || errno == ECONNRESET) {
            return Received::closed;
        } else if (errno != EINTR && errno != EAGAIN) {
            return fail_errno(errno, "control connection: receive");
        }
    }
}

// One thread accepts; each connection has its own. Finished ones are joined at the next accept.
struct ControlServer::Core {
    struct Connection {
        std::thread thread;
        int fd = -1;  // guarded by Core::lock; -1 once its thread is about to close it
        std::atomic<bool> finished{false};
    };

    std::filesystem::path path;
    Handler handler;
    Fd listener;
    Fd stop;  // eventfd: readable when the server is to stop
    std::thread acceptor;
    std::mutex lock;  // level 1; guards connections and their fd
    std::list<Connection> connections;

    void accept_loop();
    void serve(Connection& connection, Fd socket);
    void join_finished();
};

void ControlServer::Core::join_finished() {
    std::lock_guard<std::mutex> guard(lock);
    for (auto it = connections.begin(); it != connections.end();) {
        if (it->finished.load(std::memory_order_acquire)) {  // pairs with the release in serve
            it->thread.join();
            it = connections.erase(it);
        } else {
            ++it;
        }
    }
}

void ControlServer::Core::accept_loop() {
    for (;;) {
        pollfd polled[2] = {{listener.get(), POLLIN, 0}, {stop.get(), POLLIN, 0}};
        if (::poll(polled, 2, -1) < 0 && errno != EINTR) return;
        if (polled[1].revents) return;
        Fd socket(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
        if (!socket) {
            // Out of descriptors: the waiting peer keeps the listener readable; do not spin.
            if (errno == EMFILE || errno == ENFILE) ::usleep(100000);
            continue;
        }
        join_finished();
        const auto uid = peer_uid(socket.get());
        if (!uid || *uid != ::geteuid()) {
            (void)ControlConnection(std::move(socket), 0)
                .send_error({ErrorKind::operator_needed,
                             "control socket: only root may ask; run this with sudo", 0});
            continue;
        }
        std::lock_guard<std::mutex> guard(lock);
        if (connections.size() >= HERALD_CONTROL_CONNECTIONS_MAX) {
            (void)ControlConnection(std::move(socket), 0)
                .send_error({ErrorKind::retry,
                             fmt::format("control socket: {} connections are open already; try "
                                         "again when one has ended",
                                         HERALD_CONTROL_CONNECTIONS_MAX),
                             0});
            continue;
        }
        Connection& connection = connections.emplace_back();
        connection.fd = socket.get();
        auto owned = std::make_shared<Fd>(std::move(socket));
        try {
            connection.thread =
                std::thread([this, &connection, owned] { serve(connection, std::move(*owned)); });
        } catch (const std::system_error& thrown) {
            connections.pop_back();
            (void)ControlConnection(std::move(*owned), 0)
                .send_error({ErrorKind::retry,
                             fmt::format("control socket: no thread for it: {}", thrown.what()),
                             0});
        }
    }
}

void ControlServer::Core::serve(Connection& connection, Fd socket) {
    {
        ControlConnection peer(std::move(socket), HERALD_CONTROL_LINE_BYTES_MAX);
        for (;;) {
            nlohmann::json request;
            auto received = peer.receive(request, std::chrono::hours(24));
            if (!received) {
                // After a bad line there is no telling where the next one starts.
                (void)peer.send_error(received.error());
                break;
            }
            if (*received != Received::message) break;
            try {
                handler(request, peer);
            } catch (const std::exception& thrown) {
                // nlohmann throws on a field of another type: the request's fault, not ours.
                auto sent = peer.send_error({ErrorKind::operator_needed,
                                             fmt::format("request refused: {}", thrown.what()), 0});
                if (!sent) break;
            }
        }
        std::lock_guard<std::mutex> guard(lock);
        connection.fd = -1;  // before the descriptor is closed and its number used again
    }
    connection.finished.store(true, std::memory_order_release);  // pairs with join_finished
}

ControlServer::ControlServer(std::unique_ptr<Core> core) : core_(std::move(core)) {}

Result<std::unique_ptr<ControlServer>> ControlServer::start(const std::filesystem::path& socket,
                                                            Handler handler) {
    auto core = std::make_unique<Core>();
    core->path = socket;
    core->handler = std::move(handler);
    auto listener = listen_unix(socket, SOCK_STREAM, HERALD_CONTROL_CONNECTIONS_MAX);
    if (!listener) return pass(listener);
    core->listener = std::move(*listener);
    core->stop = Fd(::eventfd(0, EFD_CLOEXEC));
    if (!core->stop) return fail_errno(errno, "control socket: eventfd");
    core->acceptor = std::thread([raw = core.get()] { raw->accept_loop(); });
    return std::unique_ptr<ControlServer>(new ControlServer(std::move(core)));
}

bool ControlServer::stop(Clock::time_point until) {
    const uint64_t one = 1;
    [[maybe_unused]] const auto n = ::write(core_->stop.get(), &one, sizeof one);
    if (core_->acceptor.joinable()) core_->acceptor.join();
    {
        std::lock_guard<std::mutex> guard(core_->lock);
        for (auto& connection : core_->connections) {
            if (connection.fd >= 0) ::shutdown(connection.fd, SHUT_RDWR);
        }
    }
    // Nothing adds connections any more, so the list may be walked without the lock.
    for (auto& connection : core_->connections) {
        // Pairs with the release in serve.
        while (!connection.finished.load(std::memory_order_acquire)) {
            if (Clock::now() >= until) return false;
            std::this_thread::sleep_for(kStopLook);
        }
    }
    return true;
}

ControlServer::~ControlServer() {
    (void)stop(Clock::time_point::max());
    for (auto& connection : core_->connections) connection.thread.join();
    ::unlink(core_->path.c_str());
}

Result<ControlClient> ControlClient::connect(const std::filesystem::path& socket) {
    auto fd = connect_unix(socket, SOCK_STREAM);
    if (!fd) {
        Error error = std::move(fd).error();
        if (error.sys == ENOENT || error.sys == ECONNREFUSED) {
            error.message += "; no replicator is running there: systemctl start herald-replicator";
        } else if (error.sys == EACCES || error.sys == EPERM) {
            error.message += "; only root may: run this with sudo";
        }
        error.kind = ErrorKind::operator_needed;
        return tl::unexpected<Error>(std::move(error));
    }
    return ControlClient(ControlConnection(std::move(*fd), HERALD_CONTROL_REPLY_BYTES_MAX));
}

Result<nlohmann::json> ControlClient::next(std::chrono::milliseconds timeout) {
    nlohmann::json message;
    auto received = connection_.receive(message, timeout);
    if (!received) return pass(received);
    if (*received == Received::timeout) {
        return fail(ErrorKind::retry, "control socket: no answer within {} s",
                    double(timeout.count()) / 1000);
    }
    if (*received == Received::closed) {
        return fail(ErrorKind::retry,
                    "control socket: the replicator closed the connection (stopped or crashed)");
    }
    return message;
}

Result<nlohmann::json> ControlClient::request(const nlohmann::json& message,
                                              std::chrono::milliseconds timeout) {
    // A server that refuses this connection answers before it reads: send may fail then, and its
    // answer says why.
    auto sent = send(message);
    auto answer = next(sent ? timeout : std::chrono::milliseconds(100));
    if (!answer && !sent) return pass(sent);
    if (!answer) return pass(answer);
    auto error = error_of(*answer);
    if (!error) return pass(error);
    return answer;
}

Result<void> error_of(const nlohmann::json& message) {
    if (!message.is_object()) return {};
    const auto found = message.find("error");
    if (found == message.end() || !found->is_object()) return {};
    Error error;
    error.message = "the replicator reported an error without a message";
    if (const auto text = found->find("message"); text != found->end() && text->is_string()) {
        error.message = text->get<std::string>();
    }
    if (const auto kind = found->find("kind"); kind != found->end() && kind->is_string()) {
        for (ErrorKind k : {ErrorKind::retry, ErrorKind::resync, ErrorKind::operator_needed,
                            ErrorKind::corrupt}) {
            if (*kind == to_string(k)) error.kind = k;
        }
    }
    return tl::unexpected<Error>(std::move(error));
}

}  // namespace herald::agent
