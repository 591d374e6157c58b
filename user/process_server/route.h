// SPDX-License-Identifier: Apache-2.0
// Route is what a request asks for: which action, on which disk and position, and the role that may
// do it. It stands as docs/reference/protocol.md lists the paths.
// Callers: any thread; sans I/O. Failure: the response to send instead.
#pragma once

#include "user/base/uuid.h"
#include "user/wire/http_server.h"

namespace herald::process_server {

enum class Action {
    session,
    put_segment,
    head,
    digests,
    disks,
    points,
    segments,
    get_segment,
    status,
};

struct Route {
    Action action = Action::status;
    Uuid disk;
    uint64_t first = 0;
};

tl::expected<Route, wire::ServerResponse> parse_route(const wire::RequestHead& head);
wire::Role role_for(Action action);

// A query parameter as a number; `otherwise` when it is not there.
tl::expected<uint64_t, wire::ServerResponse> query_number(const wire::RequestHead& head,
                                                          const char* name, uint64_t otherwise);
// Empty when the request does not have it.
std::string header_of(const wire::RequestHead& head, const char* name);

}  // namespace herald::process_server
