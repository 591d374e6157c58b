// SPDX-License-Identifier: Apache-2.0
// HttpServer: HTTPS (TLS 1.3, client certificate required) with limits on everything a client
// controls: header bytes and time, body bytes and time, idle time, connections (in all and for one
// address), request bodies in memory. Half-open and slow clients cost a socket and a timer.
// Promise: a request that breaks a limit is answered (413, 431, 408, 503 with Retry-After) or
// closed, and never disturbs another connection. No handler runs before the peer is verified.
// Callers: run() blocks; stop() from any thread or signal context lets requests under way finish.
// Handlers run on a pool of `workers` threads and may block. Beast is behind http_head.cpp alone.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "herald/limits.h"
#include "user/base/file.h"
#include "user/wire/http_client.h"

namespace herald::wire {

struct ServerOptions {
    std::string address = "0.0.0.0";
    uint16_t port = 9443;  // 0: any free one, see HttpServer::port()
    unsigned workers = 4;
    size_t header_bytes_max = HERALD_HTTP_HEADER_BYTES_MAX;
    unsigned header_seconds_max = HERALD_HTTP_HEADER_SECONDS_MAX;
    unsigned body_seconds_max = HERALD_HTTP_BODY_SECONDS_MAX;
    unsigned idle_seconds_max = HERALD_HTTP_IDLE_SECONDS_MAX;
    size_t connections_max = HERALD_HTTP_CONNECTIONS_MAX;
    size_t connections_per_address_max = HERALD_HTTP_CONNECTIONS_PER_ADDRESS_MAX;
    size_t bodies_bytes_max = HERALD_HTTP_BODIES_BYTES_MAX;
};

struct RequestHead {
    std::string method;
    std::string path;                          // without the query, percent-decoded
    std::map<std::string, std::string> query;  // percent-decoded
    Headers headers;
    uint64_t content_bytes = 0;  // Content-Length; chunked bodies are refused with 411
    Identity peer;
};

struct ServerResponse {
    unsigned status = 200;
    Headers headers;
    Bytes body;
    // When set, the body is this range of a file instead.
    struct FileBody {
        Fd fd;
        uint64_t offset = 0;
        uint64_t length = 0;
    };
    std::optional<FileBody> file;
};

class HttpHandler {
  public:
    virtual ~HttpHandler() = default;
    // Called with the head alone: the most body bytes it will take, or the refusal to send.
    virtual tl::expected<size_t, ServerResponse> admit(const RequestHead& head) = 0;
    virtual ServerResponse handle(const RequestHead& head, Bytes body) = 0;
};

struct ServerCounters {
    uint64_t connections = 0;  // open now
    uint64_t accepted = 0;
    uint64_t refused_tls = 0;
    uint64_t refused_limit = 0;
    uint64_t requests = 0;
};

class HttpServer {
  public:
    static Result<std::unique_ptr<HttpServer>> listen(const ServerOptions& options,
                                                      std::shared_ptr<const TlsContext> tls,
                                                      HttpHandler& handler);
    ~HttpServer();
    uint16_t port() const;
    void run();
    void stop();
    ServerCounters counters() const;

  private:
    struct State;
    explicit HttpServer(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
};

}  // namespace herald::wire
