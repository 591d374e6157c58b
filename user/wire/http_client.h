// SPDX-License-Identifier: Apache-2.0
// HttpClient: one keep-alive HTTPS connection (TLS 1.3, client certificate) to one server.
// Promise: send() returns by its deadline; a broken connection is closed and made anew by the
// next send(). Nothing is retried here: whether a repeat is safe is the caller's knowledge.
// Callers: one thread at a time; abort() from any. Beast is behind http_head.cpp alone.
// Failure: retry for the network; operator_needed for certificates, with which side refused.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <string>

#include "user/base/bytes.h"
#include "user/base/result.h"
#include "user/wire/tls.h"

namespace herald::wire {

struct Endpoint {
    std::string host;  // name or address
    uint16_t port = 9443;
};

using Headers = std::map<std::string, std::string>;  // names in lower case

struct HttpRequest {
    std::string method = "GET";
    std::string target = "/";
    Headers headers;
    ByteView body;
};

struct HttpResponse {
    unsigned status = 0;
    Headers headers;
    Bytes body;
};

class HttpClient {
  public:
    HttpClient(Endpoint server, std::shared_ptr<const TlsContext> tls);
    ~HttpClient();
    HttpClient(const HttpClient&) = delete;
    HttpClient& operator=(const HttpClient&) = delete;

    // A response with any status is a value; no response by the deadline is an error.
    // body_bytes_max bounds the answer's body.
    Result<HttpResponse> send(const HttpRequest& request, std::chrono::milliseconds deadline,
                              size_t body_bytes_max = 32u << 20);
    // Makes a send() that is under way return a retry error soon, and every later one at once;
    // for shutting down.
    void abort();

  private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace herald::wire
