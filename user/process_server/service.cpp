// SPDX-License-Identifier: Apache-2.0
// Longer than most files: one route after the other, each as it stands in protocol.h.
#include "user/process_server/service.h"

#include <spdlog/spdlog.h>

#include <atomic>
#include <cerrno>
#include <map>
#include <mutex>

#include "user/base/crash_point.h"
#include "user/process_server/disk_gate.h"
#include "user/process_server/garbage.h"
#include "user/wire/messages.h"

namespace herald::process_server {

using wire::error_response;
using wire::json_response;
using wire::RequestHead;
using wire::ServerResponse;

namespace {

constexpr size_t kSessionRequestBytesMax = 64u << 10;
constexpr size_t kSegmentsListedDefault = 1000;

enum class Action { session, put_segment, digests, disks, points, segments, get_segment, status };

struct Route {
    Action action = Action::status;
    Uuid disk;
    uint64_t first = 0;
};

using Refusal = tl::unexpected<ServerResponse>;

Refusal refuse(unsigned status, std::string_view code, std::string_view message,
               uint64_t retry_after_s = 0) {
    return Refusal(error_response(status, code, message, retry_after_s));
}

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
        case Action::digests:
            return wire::Role::machine;
        default:
            return wire::Role::operator_;
    }
}

// A query parameter as a number; `otherwise` when it is not there.
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

ServerResponse fenced(uint64_t epoch) {
    return error_response(409, wire::kErrorFenced,
                          fmt::format("the session is over: epoch {} was granted since", epoch));
}

}  // namespace

struct Service::State {
    store::ObjectStore& store;
    vault::Catalog& catalog;
    const ServiceOptions options;
    CommitQueue queue;
    uint64_t garbage = 0;
    std::function<wire::ServerCounters()> counters;
    std::atomic<SpaceState> space{SpaceState::ok};  // the newest; for noticing a change

    std::mutex lock;  // level 0; guards gates; left before a gate is used
    std::map<Uuid, std::shared_ptr<DiskGate>> gates;

    State(store::ObjectStore& the_store, vault::Catalog& the_catalog,
          const ServiceOptions& the_options)
        : store(the_store), catalog(the_catalog), options(the_options), queue(the_catalog) {}

    std::shared_ptr<DiskGate> gate_of(const Uuid& disk) {
        const std::lock_guard hold(lock);
        const auto found = gates.find(disk);
        return found == gates.end() ? nullptr : found->second;
    }

    // Store or catalog have trouble: nothing was acknowledged, asking again is safe.
    ServerResponse trouble(const Error& error) {
        if (error.sys == ENOSPC || error.sys == EDQUOT || error.sys == EROFS) {
            return error_response(507, wire::kErrorFull,
                                  fmt::format("the server cannot store more: {}", error.message),
                                  options.retry_after_s);
        }
        spdlog::error("{}", error.message);
        const bool passing = error.kind == ErrorKind::retry;
        return error_response(passing ? 503 : 500,
                              passing ? wire::kErrorBusy : wire::kErrorInternal, error.message,
                              passing ? 1 : 0);
    }

    Result<SpaceState> look_at_space(uint64_t bytes) {
        auto free = store.space();
        if (!free) return pass(free);
        const SpaceState now = space_state(options.space, *free, bytes);
        const SpaceState before = space.exchange(now);
        if (now != before && (now > SpaceState::warning || before == SpaceState::full)) {
            spdlog::warn("store: {} with {} MiB free of {} MiB", to_string(now),
                         free->free_bytes >> 20, free->total_bytes >> 20);
        }
        return now;
    }

    // The disk, if it is this machine's.
    tl::expected<std::shared_ptr<DiskGate>, ServerResponse> own_gate(const RequestHead& head,
                                                                     const Uuid& disk) {
        auto gate = gate_of(disk);
        if (!gate) {
            return refuse(
                404, wire::kErrorNotFound,
                fmt::format("disk {} is not known; ask for a session first", to_string(disk)));
        }
        if (gate->machine() != head.peer.machine) {
            return refuse(403, wire::kErrorForbidden,
                          fmt::format("disk {} is another machine's", to_string(disk)));
        }
        return gate;
    }

    tl::expected<uint64_t, ServerResponse> epoch_of(const RequestHead& head) {
        auto epoch = wire::parse_number(header_of(head, wire::kHeaderEpoch));
        if (!epoch) {
            return refuse(400, wire::kErrorBadRequest,
                          fmt::format("header {} is missing or no number", wire::kHeaderEpoch));
        }
        return *epoch;
    }

    tl::expected<size_t, ServerResponse> admit_segment(const RequestHead& head,
                                                       const Route& route) {
        auto gate = own_gate(head, route.disk);
        if (!gate) return Refusal(std::move(gate.error()));
        auto epoch = epoch_of(head);
        if (!epoch) return Refusal(std::move(epoch.error()));
        // Before the body is read: what would be refused anyway need not cross the network.
        const uint64_t newest = (*gate)->epoch();
        if (*epoch != newest) return Refusal(fenced(newest));
        // A body too large for any store is answered 413 by what asks us, not "full".
        auto room = look_at_space(std::min<uint64_t>(head.content_bytes, HERALD_SEGMENT_BYTES_MAX));
        if (!room) return Refusal(trouble(room.error()));
        if (*room == SpaceState::full) {
            return refuse(507, wire::kErrorFull,
                          "the server's store is full; what was acknowledged is kept",
                          options.retry_after_s);
        }
        return size_t{HERALD_SEGMENT_BYTES_MAX};
    }

    ServerResponse session(const RequestHead& head, const Route& route, const Bytes& body) {
        auto request = wire::decode_session_request(as_text(body));
        if (!request) return error_response(400, wire::kErrorBadRequest, request.error().message);
        if (request->session.is_nil() || request->disk_bytes == 0 ||
            request->disk_bytes > HERALD_DISK_BYTES_MAX ||
            request->disk_bytes % HERALD_SECTOR_BYTES != 0 ||
            request->block_bytes != HERALD_BLOCK_BYTES ||
            request->name.size() > HERALD_NAME_BYTES_MAX ||
            request->identity.size() > HERALD_NAME_BYTES_MAX) {
            return error_response(
                400, wire::kErrorBadRequest,
                fmt::format("a session needs an id, a disk of whole sectors up to {} bytes, blocks "
                            "of {} bytes and names of at most {} bytes",
                            HERALD_DISK_BYTES_MAX, HERALD_BLOCK_BYTES, HERALD_NAME_BYTES_MAX));
        }
        auto gate = gate_or_new(head.peer.machine, route.disk);
        if (!gate) return std::move(gate.error());
        auto reply = (*gate)->machine() == head.peer.machine
                         ? (*gate)->grant(*request)
                         : Result<vault::GrantReply>(
                               vault::GrantReply{vault::CatalogOutcome::forbidden, {}});
        if (!reply) return trouble(reply.error());
        switch (reply->outcome) {
            case vault::CatalogOutcome::done:
                break;
            case vault::CatalogOutcome::fenced:
                return fenced((*gate)->epoch());
            default:
                return error_response(
                    403, wire::kErrorForbidden,
                    fmt::format("disk {} is another machine's", to_string(route.disk)));
        }
        spdlog::info("disk {} ({}): epoch {} granted at position {}", to_string(route.disk),
                     request->name, reply->grant.epoch, reply->grant.head);
        reply->grant.window_segments = HERALD_WINDOW_SEGMENTS;
        return json_response(200, wire::encode(reply->grant));
    }

    // A disk that asks for its first session gets a gate; its first grant registers it.
    tl::expected<std::shared_ptr<DiskGate>, ServerResponse> gate_or_new(const Uuid& machine,
                                                                        const Uuid& disk) {
        const std::lock_guard hold(lock);
        auto& gate = gates[disk];
        if (gate) return gate;
        size_t of_machine = 0;
        for (const auto& [id, other] : gates) of_machine += other && other->machine() == machine;
        if (of_machine >= HERALD_DISKS_MAX) {
            gates.erase(disk);
            return refuse(403, wire::kErrorForbidden,
                          fmt::format("machine {} has {} disks already, more are not taken",
                                      to_string(machine), of_machine));
        }
        vault::DiskRow row;
        row.disk = disk;
        row.machine = machine;
        gate = std::make_shared<DiskGate>(row, store, catalog, queue);
        return gate;
    }

    ServerResponse put_segment(const RequestHead& head, const Route& route, const Bytes& body) {
        auto gate = own_gate(head, route.disk);
        if (!gate) return std::move(gate.error());
        auto epoch = epoch_of(head);
        if (!epoch) return std::move(epoch.error());
        const uint64_t newest = (*gate)->epoch();
        if (*epoch != newest) return fenced(newest);
        const UploadClaim claim{head.peer.machine, route.disk, *epoch, route.first,
                                header_of(head, wire::kHeaderDigest)};
        auto upload = verify_upload(claim, body);
        if (!upload) {
            spdlog::warn("disk {}: refused: {}", to_string(route.disk), upload.error().message);
            return error_response(400, wire::kErrorCorrupt, upload.error().message);
        }
        crash_point("service.verified");
        auto taken = (*gate)->take(std::move(*upload), body);
        if (!taken && taken.error().kind == ErrorKind::corrupt) {
            return error_response(400, wire::kErrorCorrupt, taken.error().message);
        }
        if (!taken) return trouble(taken.error());
        return answer(route, *taken);
    }

    ServerResponse answer(const Route& route, const TakeOutcome& taken) {
        switch (taken.verdict) {
            case OfferVerdict::commit:
            case OfferVerdict::hold:
            case OfferVerdict::duplicate: {
                ServerResponse ack =
                    json_response(200, wire::encode(wire::SegmentAck{taken.head, taken.head}));
                if (space.load() == SpaceState::slow) ack.headers[wire::kHeaderRetryAfter] = "1";
                return ack;
            }
            case OfferVerdict::in_progress:
                return error_response(503, wire::kErrorBusy,
                                      "the same segment is still being stored", 1);
            case OfferVerdict::ahead:
                return error_response(
                    409, wire::kErrorAhead,
                    fmt::format("position {} is too far ahead: {} is stored; at most {} segments "
                                "may wait",
                                route.first, taken.head, HERALD_WINDOW_SEGMENTS));
            case OfferVerdict::fenced:
                return fenced(taken.epoch);
            case OfferVerdict::diverged:
                break;
        }
        spdlog::warn("disk {}: position {} diverges from what is stored up to {}",
                     to_string(route.disk), route.first, taken.head);
        return error_response(
            409, wire::kErrorDiverged,
            fmt::format("position {} holds or follows other records: everything up to {} is "
                        "stored; begin a new session",
                        route.first, taken.head));
    }

    ServerResponse digests(const RequestHead& head, const Route& route) {
        auto gate = own_gate(head, route.disk);
        if (!gate) return std::move(gate.error());
        auto first = query_number(head, "first", 0);
        if (!first) return std::move(first.error());
        auto count = query_number(head, "count", HERALD_DIGESTS_PER_REQUEST_MAX);
        if (!count) return std::move(count.error());
        if (*count > HERALD_DIGESTS_PER_REQUEST_MAX ||
            *first > HERALD_DISK_BYTES_MAX / HERALD_BLOCK_BYTES) {
            return error_response(400, wire::kErrorBadRequest,
                                  fmt::format("at most {} digests of a disk at once",
                                              HERALD_DIGESTS_PER_REQUEST_MAX));
        }
        auto found = catalog.digests(route.disk, *first, *count);
        if (!found) return trouble(found.error());
        ServerResponse response;
        response.headers["content-type"] = "application/octet-stream";
        response.body.reserve(found->size() * sizeof(Digest128));
        for (const Digest128& digest : *found) {
            response.body.insert(response.body.end(), digest.bytes.begin(), digest.bytes.end());
        }
        return response;
    }

    ServerResponse disks() {
        auto rows = catalog.disks();
        if (!rows) return trouble(rows.error());
        std::vector<wire::DiskInfo> infos;
        for (const vault::DiskRow& row : *rows) infos.push_back(vault::to_info(row));
        return json_response(200, wire::encode(infos));
    }

    ServerResponse unknown_disk(const Route& route) {
        return error_response(404, wire::kErrorNotFound,
                              fmt::format("disk {} is not known here", to_string(route.disk)));
    }

    ServerResponse points(const Route& route) {
        if (!gate_of(route.disk)) return unknown_disk(route);
        auto rows = catalog.points(route.disk);
        if (!rows) return trouble(rows.error());
        std::vector<wire::PointInfo> infos;
        for (const vault::PointRow& row : *rows) infos.push_back(vault::to_info(row));
        return json_response(200, wire::encode(infos));
    }

    ServerResponse segments(const RequestHead& head, const Route& route) {
        if (!gate_of(route.disk)) return unknown_disk(route);
        auto after = query_number(head, "after", 0);
        if (!after) return std::move(after.error());
        auto limit = query_number(head, "limit", kSegmentsListedDefault);
        if (!limit) return std::move(limit.error());
        auto rows =
            catalog.segments(route.disk, *after, std::min<uint64_t>(*limit, HERALD_LIST_ROWS_MAX));
        if (!rows) return trouble(rows.error());
        std::vector<wire::SegmentInfo> infos;
        for (const vault::SegmentRow& row : *rows) infos.push_back(vault::to_info(row));
        return json_response(200, wire::encode(infos));
    }

    ServerResponse get_segment(const Route& route) {
        auto row = catalog.segment(route.disk, route.first);
        if (!row) return trouble(row.error());
        if (!*row) {
            return error_response(404, wire::kErrorNotFound,
                                  fmt::format("disk {} has no segment that begins at position {}",
                                              to_string(route.disk), route.first));
        }
        ServerResponse response;
        response.headers["content-type"] = "application/octet-stream";
        response.headers[wire::kHeaderDigest] = to_hex((*row)->digest.bytes);
        auto info = store.stat((*row)->object);
        if (!info) return trouble(info.error());
        if (info->bytes != (*row)->bytes) {
            spdlog::error("object {} has {} bytes, the catalog says {}", info->name, info->bytes,
                          (*row)->bytes);
            return error_response(
                500, wire::kErrorCorrupt,
                fmt::format("segment {} is damaged in the store: {} bytes of {}",
                            to_string((*row)->segment), info->bytes, (*row)->bytes));
        }
        // From the file where there is one: many downloads at once must not fill the memory.
        auto file = store.open_file((*row)->object);
        if (!file) return trouble(file.error());
        if (*file) {
            response.file.emplace(ServerResponse::FileBody{std::move(**file), 0, (*row)->bytes});
            return response;
        }
        auto bytes = store.get((*row)->object, 0, (*row)->bytes);
        if (!bytes) return trouble(bytes.error());
        response.body = std::move(*bytes);
        return response;
    }

    ServerResponse status() {
        auto free = store.space();
        if (!free) return trouble(free.error());
        wire::ServerStatus status;
        status.version = HERALD_VERSION;
        status.free_bytes = free->free_bytes;
        status.total_bytes = free->total_bytes;
        status.store_state = to_string(space_state(options.space, *free, 0));
        const wire::ServerCounters now = counters ? counters() : wire::ServerCounters{};
        status.connections = now.connections;
        status.requests = now.requests;
        auto rows = catalog.disks();
        if (!rows) return trouble(rows.error());
        status.disks = rows->size();
        return json_response(200, wire::encode(status));
    }
};

Service::Service(std::unique_ptr<State> state) : state_(std::move(state)) {}
Service::~Service() = default;

Result<std::unique_ptr<Service>> Service::open(store::ObjectStore& store, vault::Catalog& catalog,
                                               const ServiceOptions& options) {
    auto removed = collect_garbage(store, catalog);
    if (!removed) return pass(removed);
    auto rows = catalog.disks();
    if (!rows) return pass(rows);
    auto state = std::make_unique<State>(store, catalog, options);
    state->garbage = *removed;
    for (const vault::DiskRow& row : *rows) {
        state->gates[row.disk] = std::make_shared<DiskGate>(row, store, catalog, state->queue);
    }
    return std::unique_ptr<Service>(new Service(std::move(state)));
}

tl::expected<size_t, ServerResponse> Service::admit(const RequestHead& head) {
    auto route = parse_route(head);
    if (!route) return Refusal(std::move(route.error()));
    if (head.peer.role != role_for(route->action)) {
        return refuse(
            403, wire::kErrorForbidden,
            fmt::format("{} may not {} {}", wire::to_string(head.peer), head.method, head.path));
    }
    switch (route->action) {
        case Action::session:
            return kSessionRequestBytesMax;
        case Action::put_segment:
            return state_->admit_segment(head, *route);
        default:
            return size_t{0};
    }
}

ServerResponse Service::handle(const RequestHead& head, Bytes body) {
    // Once more: a handler must not depend on admit() having been asked.
    auto route = parse_route(head);
    if (!route) return std::move(route.error());
    if (head.peer.role != role_for(route->action)) {
        return error_response(403, wire::kErrorForbidden, "not with this certificate");
    }
    switch (route->action) {
        case Action::session:
            return state_->session(head, *route, body);
        case Action::put_segment:
            return state_->put_segment(head, *route, body);
        case Action::digests:
            return state_->digests(head, *route);
        case Action::disks:
            return state_->disks();
        case Action::points:
            return state_->points(*route);
        case Action::segments:
            return state_->segments(head, *route);
        case Action::get_segment:
            return state_->get_segment(*route);
        case Action::status:
            return state_->status();
    }
    return error_response(500, wire::kErrorInternal, "no such action");
}

void Service::set_counters(std::function<wire::ServerCounters()> counters) {
    state_->counters = std::move(counters);
}

uint64_t Service::garbage_removed() const { return state_->garbage; }

}  // namespace herald::process_server
