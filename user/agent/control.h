// SPDX-License-Identifier: Apache-2.0
// The control socket: how cbtctl talks to the replicator on the same host. One JSON object on each
// line, over a unix stream socket that only root can open (mode 0600, and the peer's uid checked).
// Layout of requests and answers: docs/reference/control.md.
// Promise: a request line is at most HERALD_CONTROL_LINE_BYTES_MAX, an answer at most
// HERALD_CONTROL_REPLY_BYTES_MAX, connections at most HERALD_CONTROL_CONNECTIONS_MAX: what is over
// is refused with an error. A handler that throws becomes an error answer. Callers: ControlServer
// from one thread; its handler runs on a thread of each connection, so it locks what it shares.
// Owns: the socket file (removed at the end) and its threads.
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "user/base/file.h"
#include "user/base/result.h"

namespace herald::agent {

inline constexpr char kControlSocketDefault[] = "/run/herald/replicator.sock";

enum class Received { message, timeout, closed };

// One line of JSON in each direction; both ends use it.
class ControlConnection {
  public:
    // `line_bytes_max` bounds what is received, not what is sent.
    ControlConnection(Fd socket, size_t line_bytes_max);
    ControlConnection(ControlConnection&&) = default;
    ControlConnection& operator=(ControlConnection&&) = default;

    // Fails (retry) when the peer is gone or does not read for 5 s.
    Result<void> send(const nlohmann::json& message);
    // {"error": {"kind", "message"}} from an Error.
    Result<void> send_error(const Error& error);
    // Waits for the next line. An error is a line too long or not a JSON object (operator_needed).
    // "closed" is the peer's end of file, or the server stopping.
    Result<Received> receive(nlohmann::json& to, std::chrono::milliseconds timeout);
    int fd() const { return socket_.get(); }

  private:
    Fd socket_;
    size_t line_bytes_max_;
    std::string buffer_;
};

class ControlServer {
  public:
    // Answers one request; more messages of the same exchange may be sent and received on the way.
    using Handler = std::function<void(const nlohmann::json& request, ControlConnection&)>;

    // Listens at once. An existing socket file that nobody listens on is replaced.
    static Result<std::unique_ptr<ControlServer>> start(const std::filesystem::path& socket,
                                                        Handler handler);
    // Closes every connection, waits for the handlers, removes the socket file.
    ~ControlServer();
    // The same, but waits until then only. False: a handler has not returned, so that this object
    // must not be destroyed; end the process.
    [[nodiscard]] bool stop(std::chrono::steady_clock::time_point until);
    ControlServer(const ControlServer&) = delete;
    ControlServer& operator=(const ControlServer&) = delete;

  private:
    struct Core;
    explicit ControlServer(std::unique_ptr<Core> core);
    std::unique_ptr<Core> core_;
};

class ControlClient {
  public:
    // Error: operator_needed with what to start, when nobody listens.
    static Result<ControlClient> connect(const std::filesystem::path& socket);

    // Sends and waits for one answer; an {"error"} answer becomes an Error of that kind.
    Result<nlohmann::json> request(const nlohmann::json& message,
                                   std::chrono::milliseconds timeout);
    Result<void> send(const nlohmann::json& message) { return connection_.send(message); }
    // The next message; a timeout and a closed connection are errors (retry).
    Result<nlohmann::json> next(std::chrono::milliseconds timeout);
    ControlConnection& connection() { return connection_; }

  private:
    explicit ControlClient(ControlConnection connection) : connection_(std::move(connection)) {}
    ControlConnection connection_;
};

// The other way round: {"error": {...}} to an Error. Anything else: nothing.
Result<void> error_of(const nlohmann::json& message);

}  // namespace herald::agent
