// SPDX-License-Identifier: Apache-2.0
// HttpConnection serves one client: handshake, then request after request, each within its
// limits. ServerShared is what all connections of one server have in common.
// Promise: the handler sees a request only after the peer's certificate was verified; every wait
// has a deadline; a connection that is told to end touches its socket no more.
// Callers: the one thread that runs the io_context. Failure: ends this connection, no other.
#pragma once

#include <utility>  // before Asio 1.74, which forgets it

#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <optional>

#include "user/wire/body_budget.h"
#include "user/wire/http_head.h"
#include "user/wire/http_server.h"
#include "user/wire/tls_session.h"

namespace herald::wire {

// At most ten lines in ten seconds, however many strangers knock.
class RefusalLog {
  public:
    void refused(const std::string& address, std::string_view why);

  private:
    std::chrono::steady_clock::time_point window_start_{};
    unsigned lines_ = 0;
    uint64_t suppressed_ = 0;
};

struct ServerShared {
    ServerShared(const ServerOptions& o, std::shared_ptr<const TlsContext> t, HttpHandler& h)
        : options(o), tls(std::move(t)), handler(h), budget(o.bodies_bytes_max) {}

    const ServerOptions options;
    const std::shared_ptr<const TlsContext> tls;
    HttpHandler& handler;
    BodyBudget budget;
    RefusalLog log;
    bool stopping = false;
    // Read by counters() from other threads; single numbers, so relaxed.
    std::atomic<uint64_t> refused_tls{0};
    std::atomic<uint64_t> refused_limit{0};
    std::atomic<uint64_t> requests{0};
    boost::asio::io_context io{1};
    std::optional<boost::asio::thread_pool> workers;
};

class HttpConnection : public std::enable_shared_from_this<HttpConnection> {
  public:
    enum class Phase {
        handshake,  // not a peer yet
        idle,       // between requests
        busy,       // from the first byte of a request to the last of its answer
        closing,    // saying goodbye
    };

    HttpConnection(ServerShared& server, boost::asio::ip::tcp::socket socket, std::string address);

    boost::asio::awaitable<void> run();
    // Ends it at its next step, at once when it waits for the network.
    void end();

    Phase phase() const { return phase_; }
    bool is_ended() const { return ended_; }
    const std::string& address() const { return address_; }

  private:
    using Clock = std::chrono::steady_clock;
    template <class T>
    using Awaitable = boost::asio::awaitable<T>;
    enum class Next { keep, close };

    Awaitable<bool> handshake();
    Awaitable<bool> read_head(ParsedRequest& request);
    Awaitable<Next> serve(const ParsedRequest& request);
    Awaitable<bool> read_body(size_t bytes, Bytes& body);
    Awaitable<Next> answer(const ServerResponse& response, bool keep_alive, bool with_body = true);
    Awaitable<bool> send_file(const ServerResponse::FileBody& file);
    Awaitable<bool> send(ByteView bytes, bool last);
    Awaitable<bool> receive(ByteSpan to, size_t& got);
    Awaitable<void> goodbye();

    // Waits until the socket is ready for `step`; false when the deadline passed or end() came.
    Awaitable<bool> ready(Step step);
    // Lets other connections have the thread after much work in one go.
    Awaitable<void> share_thread();
    // Runs `job` on a worker while this coroutine waits.
    template <class Job>
    Awaitable<void> on_worker(Job& job);

    void set_deadline(std::chrono::seconds after);
    void clear_deadline() { deadline_ = Clock::time_point::max(); }
    void watch();

    ServerShared& server_;
    boost::asio::ip::tcp::socket socket_;
    boost::asio::steady_timer timer_;
    const std::string address_;
    std::unique_ptr<TlsSession> tls_;
    Identity peer_;
    Phase phase_ = Phase::handshake;
    Clock::time_point deadline_ = Clock::time_point::max();
    bool watching_ = false;
    bool expired_ = false;           // the deadline passed
    bool ended_ = false;             // end() was called
    bool client_spoke_last_ = true;  // false while the next request has not begun
    Bytes input_;                    // received, not consumed: heads and the beginnings of bodies
    size_t input_filled_ = 0;
    size_t work_bytes_ = 0;  // since the thread was last shared
};

}  // namespace herald::wire
