// SPDX-License-Identifier: Apache-2.0
// The heads of HTTP/1.1 messages: bytes in, fields out; no sockets. Beast's parser is behind
// http_head.cpp alone.
// Promise: nothing larger than the limit is parsed; a head that two readers could understand
// differently (two lengths, a length and a transfer coding, bare line ends) is malformed.
// Callers: any thread.
#pragma once

#include <optional>
#include <string>

#include "user/base/bytes.h"
#include "user/wire/http_server.h"

namespace herald::wire {

enum class HeadStep { need_more, done, too_large, malformed };

struct ParsedRequest {
    RequestHead head;  // without the peer
    bool keep_alive = false;
    bool expect_continue = false;
    bool chunked = false;
    bool has_length = false;
};

struct ParsedResponse {
    unsigned status = 0;
    Headers headers;
    bool keep_alive = false;
    bool chunked = false;
    std::optional<uint64_t> content_bytes;
};

// Looks for a whole head at the front of `bytes`. `searched` is where to go on looking: 0 at
// first, kept between calls while more bytes arrive. done: `head_bytes` of them are the head.
struct HeadSearch {
    size_t searched = 0;
    size_t head_bytes = 0;
};
HeadStep find_head(ByteView bytes, size_t head_bytes_max, HeadSearch& search);

// `head` is exactly one head, its blank line included. An error's message is for the peer.
Result<ParsedRequest> parse_request_head(ByteView head);
Result<ParsedResponse> parse_response_head(ByteView head);

// What parse_request_head() reads and what a client can send. Control characters in any part
// are refused: they would end the line and begin another.
Result<std::string> format_request_head(const HttpRequest& request, const Endpoint& server);
std::string format_response_head(unsigned status, const Headers& headers, uint64_t content_bytes,
                                 bool keep_alive);

}  // namespace herald::wire
