// SPDX-License-Identifier: Apache-2.0
#include "user/process_server/service.h"

#include "user/process_server/garbage.h"
#include "user/process_server/machine_requests.h"
#include "user/process_server/operator_requests.h"
#include "user/wire/messages.h"

namespace herald::process_server {

using wire::error_response;
using wire::RequestHead;
using wire::ServerResponse;

namespace {

constexpr size_t kSessionRequestBytesMax = 64u << 10;

}  // namespace

struct Service::State {
    DiskGates gates;
    LastHeard last_heard;
    MachineRequests machine;
    OperatorRequests operator_;
    uint64_t garbage = 0;
    std::function<wire::ServerCounters()> counters;

    State(store::ObjectStore& store, vault::Catalog& catalog, const ServiceOptions& options,
          std::span<const vault::DiskRow> rows)
        : gates(store, catalog, rows),
          last_heard(std::chrono::seconds(options.silent_after_s), options.clock),
          machine(store, catalog, gates, last_heard, options),
          operator_(store, catalog, gates, last_heard, options) {}
};

Service::Service(std::unique_ptr<State> state) : state_(std::move(state)) {}
Service::~Service() = default;

Result<std::unique_ptr<Service>> Service::open(store::ObjectStore& store, vault::Catalog& catalog,
                                               const ServiceOptions& options) {
    auto removed = collect_garbage(store, catalog);
    if (!removed) return pass(removed);
    auto rows = catalog.disks();
    if (!rows) return pass(rows);
    auto state = std::make_unique<State>(store, catalog, options, *rows);
    state->garbage = *removed;
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
            return state_->machine.admit_segment(head, *route);
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
            return state_->machine.session(head, *route, body);
        case Action::put_segment:
            return state_->machine.put_segment(head, *route, body);
        case Action::head:
            return state_->machine.look(head, *route);
        case Action::digests:
            return state_->machine.digests(head, *route);
        case Action::disks:
            return state_->operator_.disks();
        case Action::points:
            return state_->operator_.points(head, *route);
        case Action::segments:
            return state_->operator_.segments(head, *route);
        case Action::get_segment:
            return state_->operator_.get_segment(*route);
        case Action::status:
            return state_->operator_.status(state_->counters ? state_->counters()
                                                             : wire::ServerCounters{});
    }
    return error_response(500, wire::kErrorInternal, "no such action");
}

void Service::set_counters(std::function<wire::ServerCounters()> counters) {
    state_->counters = std::move(counters);
}

uint64_t Service::garbage_removed() const { return state_->garbage; }

}  // namespace herald::process_server
