// SPDX-License-Identifier: Apache-2.0
// Service answers every request of the protocol from a store and a catalog.
// Promise: acked_is_kept: a position is acknowledged only after the object and the catalog commit
// are durable; fenced; a body that is not a whole, valid segment of that machine, disk, epoch and
// position is refused and leaves nothing behind; a repeated PUT gets the same acknowledgement.
// Callers: handlers on any thread; disks do not wait for each other except in a shared commit.
// Owns: nothing; borrows store and catalog. Memory: the bodies under way (bounded by HttpServer)
// and the effects of at most HERALD_WINDOW_SEGMENTS held segments for each disk.
// Crash points: service.verified, service.stored, service.committed.
#pragma once

#include <functional>
#include <memory>

#include "user/process_server/last_heard.h"
#include "user/process_server/space_guard.h"
#include "user/store/object_store.h"
#include "user/vault/catalog.h"
#include "user/wire/http_server.h"

namespace herald::process_server {

struct ServiceOptions {
    SpaceLimits space;
    unsigned retry_after_s = 5;  // what a refused source is told while the store is full
    // Three looks of an idle replicator: one may be lost, one may be late.
    unsigned silent_after_s = 3 * wire::kLookEverySeconds;
    HostClock clock = time_awake_or_not;  // what LastHeard counts by
};

class Service : public wire::HttpHandler {
  public:
    // Removes objects that no row of the catalog refers to. Says how many in garbage_removed().
    static Result<std::unique_ptr<Service>> open(store::ObjectStore& store, vault::Catalog& catalog,
                                                 const ServiceOptions& options);
    ~Service() override;

    tl::expected<size_t, wire::ServerResponse> admit(const wire::RequestHead& head) override;
    wire::ServerResponse handle(const wire::RequestHead& head, Bytes body) override;

    // Where the figures of ServerStatus about connections come from.
    void set_counters(std::function<wire::ServerCounters()> counters);
    uint64_t garbage_removed() const;

  private:
    struct State;
    explicit Service(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
};

}  // namespace herald::process_server
