// SPDX-License-Identifier: Apache-2.0
// MachineRequests answers what a replicator asks: for a session, to take a segment, for digests.
// Promise: acked_is_kept and fenced, as service.h says; a disk that is another machine's is
// refused. What the newest session's machine asks is noted in LastHeard: a superseded one is not
// the disk speaking.
// Callers: any thread. Borrows store, catalog, gates and last_heard. Crash point: service.verified.
#pragma once

#include <atomic>

#include "user/process_server/disk_gates.h"
#include "user/process_server/route.h"
#include "user/process_server/service.h"

namespace herald::process_server {

class MachineRequests {
  public:
    MachineRequests(store::ObjectStore& store, vault::Catalog& catalog, DiskGates& gates,
                    LastHeard& last_heard, const ServiceOptions& options)
        : store_(store),
          catalog_(catalog),
          gates_(gates),
          last_heard_(last_heard),
          options_(options) {}

    // Before the body is read: what would be refused anyway need not cross the network.
    tl::expected<size_t, wire::ServerResponse> admit_segment(const wire::RequestHead& head,
                                                             const Route& route);
    wire::ServerResponse session(const wire::RequestHead& head, const Route& route,
                                 const Bytes& body);
    wire::ServerResponse put_segment(const wire::RequestHead& head, const Route& route,
                                     const Bytes& body);
    wire::ServerResponse look(const wire::RequestHead& head, const Route& route);
    wire::ServerResponse digests(const wire::RequestHead& head, const Route& route);

  private:
    // Why no segment is taken now; empty when they are.
    Result<std::string> look_at_space();
    wire::ServerResponse answer(const Route& route, const TakeOutcome& taken);

    store::ObjectStore& store_;
    vault::Catalog& catalog_;
    DiskGates& gates_;
    LastHeard& last_heard_;
    const ServiceOptions options_;
    // The newest; for noticing a change.
    std::atomic<SpaceState> store_space_{SpaceState::ok};
    std::atomic<SpaceState> catalog_space_{SpaceState::ok};
};

}  // namespace herald::process_server
