// SPDX-License-Identifier: Apache-2.0
#include "user/wire/http_server.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <list>
#include <map>

#include "user/wire/http_connection.h"

namespace herald::wire {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;

// Requests under way at stop() have this long; then their connections end. Handlers are waited
// for in any case, because they may be in the middle of a durable step.
constexpr std::chrono::seconds kStopGrace{10};
// When the process is out of descriptors, accepting again at once would only spin.
constexpr std::chrono::milliseconds kAcceptBackOff{100};
constexpr unsigned kWorkersMax = 64;

Result<void> check(const ServerOptions& o) {
    const bool sane = o.workers > 0 && o.workers <= kWorkersMax && o.header_bytes_max >= 256 &&
                      o.header_bytes_max <= (1u << 20) && o.header_seconds_max > 0 &&
                      o.body_seconds_max > 0 && o.idle_seconds_max > 0 && o.connections_max > 0 &&
                      o.connections_per_address_max > 0 && o.bodies_bytes_max > 0;
    if (!sane) return fail(ErrorKind::operator_needed, "server options: a limit is out of range");
    return {};
}

}  // namespace

struct HttpServer::State {
    State(const ServerOptions& options, std::shared_ptr<const TlsContext> tls, HttpHandler& handler)
        : shared(options, std::move(tls), handler),
          stop_event(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
          acceptor(shared.io),
          stop_wait(shared.io),
          grace(shared.io) {}

    using Connections = std::list<std::shared_ptr<HttpConnection>>;

    ServerShared shared;
    std::atomic<uint64_t> open{0};  // read by counters(); relaxed
    std::atomic<uint64_t> accepted{0};
    Connections connections;  // oldest first
    std::map<std::string, size_t> per_address;
    Fd stop_event;
    tcp::acceptor acceptor;
    asio::posix::stream_descriptor stop_wait;
    asio::steady_timer grace;
    uint16_t port = 0;

    Result<void> open_port();
    asio::awaitable<void> accept();
    void begin(tcp::socket socket);
    bool make_room(const std::string& address);
    bool evict(const std::string* address);
    void forget(Connections::iterator at);
    void begin_stop();
    void end_if_idle() {
        if (shared.stopping && connections.empty()) shared.io.stop();
    }
};

Result<void> HttpServer::State::open_port() {
    boost::system::error_code error;
    const auto address = asio::ip::make_address(shared.options.address, error);
    if (error)
        return fail(ErrorKind::operator_needed, "listen on '{}': not an address",
                    shared.options.address);
    const tcp::endpoint endpoint(address, shared.options.port);
    acceptor.open(endpoint.protocol(), error);
    if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
    if (!error) acceptor.bind(endpoint, error);
    if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
    if (!error) acceptor.non_blocking(true, error);
    if (error)
        return fail(ErrorKind::operator_needed, "listen on {}:{}: {}", shared.options.address,
                    shared.options.port, error.message());
    port = acceptor.local_endpoint(error).port();
    return {};
}

asio::awaitable<void> HttpServer::State::accept() {
    asio::steady_timer back_off(shared.io);
    for (;;) {
        boost::system::error_code error;
        tcp::socket socket(shared.io);
        co_await acceptor.async_accept(socket, asio::redirect_error(asio::use_awaitable, error));
        if (shared.stopping) co_return;
        if (!error) {
            begin(std::move(socket));
            continue;
        }
        if (error == asio::error::no_descriptors) (void)evict(nullptr);
        back_off.expires_after(kAcceptBackOff);
        co_await back_off.async_wait(asio::redirect_error(asio::use_awaitable, error));
        if (shared.stopping) co_return;
    }
}

void HttpServer::State::begin(tcp::socket socket) {
    boost::system::error_code error;
    accepted.fetch_add(1, std::memory_order_relaxed);
    const auto peer = socket.remote_endpoint(error);
    if (!error) socket.non_blocking(true, error);
    if (error) return;  // it went away already
    const std::string address = peer.address().to_string();
    if (!make_room(address)) {
        shared.refused_limit.fetch_add(1, std::memory_order_relaxed);
        shared.log.refused(address, "too many connections");
        return;
    }
    connections.push_back(std::make_shared<HttpConnection>(shared, std::move(socket), address));
    per_address[address]++;
    open.fetch_add(1, std::memory_order_relaxed);
    const auto at = std::prev(connections.end());
    asio::co_spawn(shared.io, (*at)->run(), [this, at](std::exception_ptr) { forget(at); });
}

// A newcomer takes the place of the oldest connection that is not a verified peer's: a real
// client is through its handshake in milliseconds, one that holds a place open is not.
bool HttpServer::State::make_room(const std::string& address) {
    const auto count = per_address.find(address);
    if (count != per_address.end() && count->second >= shared.options.connections_per_address_max)
        return evict(&address);
    if (connections.size() >= shared.options.connections_max) return evict(nullptr);
    return true;
}

bool HttpServer::State::evict(const std::string* address) {
    for (const auto& connection : connections) {
        const auto phase = connection->phase();
        const bool stranger =
            phase == HttpConnection::Phase::handshake || phase == HttpConnection::Phase::closing;
        if (!stranger || connection->is_ended() || (address && connection->address() != *address))
            continue;
        shared.refused_limit.fetch_add(1, std::memory_order_relaxed);
        shared.log.refused(connection->address(), "its place was needed before it was verified");
        connection->end();
        return true;
    }
    return false;
}

void HttpServer::State::forget(Connections::iterator at) {
    const auto count = per_address.find((*at)->address());
    if (--count->second == 0) per_address.erase(count);
    connections.erase(at);
    open.fetch_sub(1, std::memory_order_relaxed);
    end_if_idle();
}

void HttpServer::State::begin_stop() {
    shared.stopping = true;
    boost::system::error_code ignored;
    acceptor.close(ignored);
    for (const auto& connection : connections)
        if (connection->phase() != HttpConnection::Phase::busy) connection->end();
    grace.expires_after(kStopGrace);
    grace.async_wait([this](boost::system::error_code error) {
        if (error) return;
        for (const auto& connection : connections) connection->end();
    });
    end_if_idle();
}

Result<std::unique_ptr<HttpServer>> HttpServer::listen(const ServerOptions& options,
                                                       std::shared_ptr<const TlsContext> tls,
                                                       HttpHandler& handler) {
    if (auto checked = check(options); !checked) return pass(checked);
    auto state = std::make_unique<State>(options, std::move(tls), handler);
    if (!state->stop_event) return fail_errno(errno, "eventfd");
    if (auto opened = state->open_port(); !opened) return pass(opened);
    return std::unique_ptr<HttpServer>(new HttpServer(std::move(state)));
}

HttpServer::HttpServer(std::unique_ptr<State> state) : state_(std::move(state)) {}
HttpServer::~HttpServer() = default;

uint16_t HttpServer::port() const { return state_->port; }

void HttpServer::run() {
    State& s = *state_;
    s.shared.workers.emplace(s.shared.options.workers);
    boost::system::error_code error;
    s.stop_wait.assign(::fcntl(s.stop_event.get(), F_DUPFD_CLOEXEC, 0), error);
    s.stop_wait.async_wait(asio::posix::stream_descriptor::wait_read,
                           [&s](boost::system::error_code failed) {
                               if (!failed) s.begin_stop();
                           });
    asio::co_spawn(s.shared.io, s.accept(), asio::detached);
    s.shared.io.run();
    s.shared.workers->join();
}

void HttpServer::stop() {
    const uint64_t one = 1;
    (void)!::write(state_->stop_event.get(), &one, sizeof one);  // safe in a signal handler
}

ServerCounters HttpServer::counters() const {
    const auto read = [](const std::atomic<uint64_t>& counter) {
        return counter.load(std::memory_order_relaxed);
    };
    const State& s = *state_;
    return {read(s.open), read(s.accepted), read(s.shared.refused_tls),
            read(s.shared.refused_limit), read(s.shared.requests)};
}

}  // namespace herald::wire
