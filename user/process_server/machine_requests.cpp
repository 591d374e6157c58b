// SPDX-License-Identifier: Apache-2.0
#include "user/process_server/machine_requests.h"

#include <spdlog/spdlog.h>

#include "user/base/crash_point.h"
#include "user/wire/messages.h"

namespace herald::process_server {

using wire::error_response;
using wire::json_response;
using wire::RequestHead;
using wire::ServerResponse;

namespace {

tl::expected<uint64_t, ServerResponse> epoch_of(const RequestHead& head) {
    auto epoch = wire::parse_number(header_of(head, wire::kHeaderEpoch));
    if (!epoch) {
        return refuse(400, wire::kErrorBadRequest,
                      fmt::format("header {} is missing or no number", wire::kHeaderEpoch));
    }
    return *epoch;
}

}  // namespace

Result<std::string> MachineRequests::look_at_space() {
    const auto note = [](const char* what, std::atomic<SpaceState>& newest, SpaceState now,
                         const store::StoreSpace& space) -> std::string {
        const SpaceState before = newest.exchange(now);
        if (now != before && (now > SpaceState::warning || before == SpaceState::full)) {
            spdlog::warn("{}: {} with {} MiB free of {} MiB", what, to_string(now),
                         space.free_bytes >> 20, space.total_bytes >> 20);
        }
        if (now != SpaceState::full) return {};
        return fmt::format("the server's {} is full; what was acknowledged is kept", what);
    };
    auto store = store_.space();
    if (!store) return pass(store);
    auto catalog = catalog_.space();
    if (!catalog) return pass(catalog);
    const std::string catalog_full = note(
        "catalog", catalog_space_, space_state(catalog_limits(options_.space), *catalog), *catalog);
    const std::string store_full =
        note("store", store_space_, space_state(options_.space, *store), *store);
    return store_full.empty() ? catalog_full : store_full;
}

tl::expected<size_t, ServerResponse> MachineRequests::admit_segment(const RequestHead& head,
                                                                    const Route& route) {
    auto gate = gates_.own(route.disk, head.peer.machine);
    if (!gate) return Refusal(std::move(gate.error()));
    auto epoch = epoch_of(head);
    if (!epoch) return Refusal(std::move(epoch.error()));
    // Before the body is read: what would be refused anyway need not cross the network.
    const uint64_t newest = (*gate)->epoch();
    if (*epoch != newest) return Refusal(fenced(newest));
    last_heard_.hear(route.disk);
    auto full = look_at_space();
    if (!full) return Refusal(trouble(full.error(), options_.retry_after_s));
    if (!full->empty()) return refuse(507, wire::kErrorFull, *full, options_.retry_after_s);
    return size_t{HERALD_SEGMENT_BYTES_MAX};
}

ServerResponse MachineRequests::session(const RequestHead& head, const Route& route,
                                        const Bytes& body) {
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
    auto gate = gates_.own_or_new(route.disk, head.peer.machine);
    if (!gate) return std::move(gate.error());
    auto reply = (*gate)->grant(*request);
    if (!reply) return trouble(reply.error(), options_.retry_after_s);
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
    last_heard_.hear(route.disk);
    spdlog::info("disk {} ({}): epoch {} granted at position {}", to_string(route.disk),
                 request->name, reply->grant.epoch, reply->grant.head);
    reply->grant.window_segments = HERALD_WINDOW_SEGMENTS;
    return json_response(200, wire::encode(reply->grant));
}

ServerResponse MachineRequests::put_segment(const RequestHead& head, const Route& route,
                                            const Bytes& body) {
    auto gate = gates_.own(route.disk, head.peer.machine);
    if (!gate) return std::move(gate.error());
    auto epoch = epoch_of(head);
    if (!epoch) return std::move(epoch.error());
    const uint64_t newest = (*gate)->epoch();
    if (*epoch != newest) return fenced(newest);
    last_heard_.hear(route.disk);
    const UploadClaim claim{head.peer.machine, route.disk, *epoch, route.first,
                            header_of(head, wire::kHeaderDigest)};
    auto upload = verify_upload(claim, body);
    if (!upload) {
        spdlog::warn("disk {}: refused: {}", to_string(route.disk), upload.error().message);
        return error_response(400, wire::kErrorCorrupt, upload.error().message);
    }
    crash_point("service.verified");
    auto taken = (*gate)->take(std::move(*upload), body);
    if (!taken) {
        ServerResponse answer = trouble(taken.error(), options_.retry_after_s);
        if (answer.status == 507) {
            last_heard_.note_store(
                route.disk,
                fmt::format("the server cannot store more: {}; what was acknowledged is "
                            "kept",
                            taken.error().message));
        }
        return answer;
    }
    // One that waits for the head says nothing of the head.
    if (taken->head >= route.first) last_heard_.note_store(route.disk, "");
    if (!taken->refusal.empty()) {
        spdlog::warn("disk {}: refused: {}", to_string(route.disk), taken->refusal);
        return error_response(400, wire::kErrorCorrupt, taken->refusal);
    }
    return answer(route, *taken);
}

ServerResponse MachineRequests::look(const RequestHead& head, const Route& route) {
    auto gate = gates_.own(route.disk, head.peer.machine);
    if (!gate) return std::move(gate.error());
    auto epoch = epoch_of(head);
    if (!epoch) return std::move(epoch.error());
    const TakeOutcome seen = (*gate)->look(*epoch);
    if (seen.verdict != OfferVerdict::fenced) last_heard_.hear(route.disk);
    return answer(route, seen);
}

ServerResponse MachineRequests::answer(const Route& route, const TakeOutcome& taken) {
    switch (taken.verdict) {
        case OfferVerdict::commit:
        case OfferVerdict::hold:
        case OfferVerdict::duplicate: {
            ServerResponse ack = json_response(
                200, wire::encode(wire::SegmentAck{taken.head, taken.head, taken.head_segment}));
            if (store_space_.load() == SpaceState::slow) ack.headers[wire::kHeaderRetryAfter] = "1";
            return ack;
        }
        case OfferVerdict::in_progress:
            // Not waited for: a client that gave up and sent again must not hold a thread.
            return error_response(503, wire::kErrorBusy, "the same segment is still being stored",
                                  1);
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

ServerResponse MachineRequests::digests(const RequestHead& head, const Route& route) {
    auto gate = gates_.own(route.disk, head.peer.machine);
    if (!gate) return std::move(gate.error());
    auto first = query_number(head, "first", 0);
    if (!first) return std::move(first.error());
    auto count = query_number(head, "count", HERALD_DIGESTS_PER_REQUEST_MAX);
    if (!count) return std::move(count.error());
    if (*count > HERALD_DIGESTS_PER_REQUEST_MAX ||
        *first > HERALD_DISK_BYTES_MAX / HERALD_BLOCK_BYTES) {
        return error_response(
            400, wire::kErrorBadRequest,
            fmt::format("at most {} digests of a disk at once", HERALD_DIGESTS_PER_REQUEST_MAX));
    }
    auto found = catalog_.digests(route.disk, *first, *count);
    if (!found) return trouble(found.error(), options_.retry_after_s);
    ServerResponse response;
    response.headers["content-type"] = "application/octet-stream";
    response.body.reserve(found->size() * sizeof(Digest128));
    for (const Digest128& digest : *found) {
        response.body.insert(response.body.end(), digest.bytes.begin(), digest.bytes.end());
    }
    return response;
}

}  // namespace herald::process_server
