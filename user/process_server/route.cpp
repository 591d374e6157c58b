// SPDX-License-Identifier: Apache-2.0
#include "user/process_server/route.h"

#include <algorithm>

#include "user/process_server/responses.h"
#include "user/wire/messages.h"

namespace herald::process_server {

using wire::RequestHead;
using wire::ServerResponse;

namespace {

std::vector<std::string_view> split_path(std::string_view path) {
    std::vector<std::string_view> parts;
    // Nothing in the protocol is deeper than this; the rest need not be looked at.
    constexpr size_t kPartsMax = 8;
    while (!path.empty() && parts.size() < kPartsMax) {
        path.remove_prefix(1);
        const size_t end = std::min(path.find('/'), path.size());
        parts.push_back(path.substr(0, end));
        path.remove_prefix(end);
    }
    return parts;
}

}  // namespace

tl::expected<Route, ServerResponse> parse_route(const RequestHead& head) {
    const auto unknown = [&] {
        return refuse(404, wire::kErrorNotFound, fmt::format("{}: no such path", head.path));
    };
    if (head.path.empty() || head.path[0] != '/') return unknown();
    const auto parts = split_path(head.path);
    const bool get = head.method == "GET";
    Route route;
    bool allowed = false;
    if (parts.size() == 2 && parts[0] == "v1" && parts[1] == "status") {
        allowed = get;
        route.action = Action::status;
    } else if (parts.size() == 2 && parts[0] == "v1" && parts[1] == "disks") {
        allowed = get;
        route.action = Action::disks;
    } else if (parts.size() >= 4 && parts[0] == "v1" && parts[1] == "disks") {
        auto disk = Uuid::parse(parts[2]);
        if (!disk) return refuse(400, wire::kErrorBadRequest, disk.error().message);
        route.disk = *disk;
        if (parts.size() == 4 && parts[3] == "session") {
            allowed = head.method == "POST";
            route.action = Action::session;
        } else if (parts.size() == 4 && parts[3] == "head") {
            allowed = get;
            route.action = Action::head;
        } else if (parts.size() == 4 && parts[3] == "digests") {
            allowed = get;
            route.action = Action::digests;
        } else if (parts.size() == 4 && parts[3] == "points") {
            allowed = get;
            route.action = Action::points;
        } else if (parts.size() == 4 && parts[3] == "segments") {
            allowed = get;
            route.action = Action::segments;
        } else if (parts.size() == 5 && parts[3] == "segments") {
            auto first = wire::parse_number(parts[4]);
            if (!first || *first == 0) {
                return refuse(400, wire::kErrorBadRequest,
                              fmt::format("'{}' is not a position", parts[4]));
            }
            route.first = *first;
            allowed = get || head.method == "PUT";
            route.action = get ? Action::get_segment : Action::put_segment;
        } else {
            return unknown();
        }
    } else {
        return unknown();
    }
    if (!allowed) {
        return refuse(405, wire::kErrorBadRequest,
                      fmt::format("{} {}: no such method here", head.method, head.path));
    }
    return route;
}

wire::Role role_for(Action action) {
    switch (action) {
        case Action::session:
        case Action::put_segment:
        case Action::head:
        case Action::digests:
            return wire::Role::machine;
        default:
            return wire::Role::operator_;
    }
}

tl::expected<uint64_t, ServerResponse> query_number(const RequestHead& head, const char* name,
                                                    uint64_t otherwise) {
    const auto found = head.query.find(name);
    if (found == head.query.end()) return otherwise;
    auto number = wire::parse_number(found->second);
    if (!number) {
        return refuse(400, wire::kErrorBadRequest,
                      fmt::format("{}='{}' is not a number", name, found->second.substr(0, 32)));
    }
    return *number;
}

std::string header_of(const RequestHead& head, const char* name) {
    const auto found = head.headers.find(name);
    return found == head.headers.end() ? std::string() : found->second;
}

}  // namespace herald::process_server
