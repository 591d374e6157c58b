// SPDX-License-Identifier: Apache-2.0
// OperatorRequests answers what an operator asks: lists, the server's state, and a segment's file.
// Callers: any thread. Borrows all it is given. Changes nothing.
#pragma once

#include "user/process_server/disk_gates.h"
#include "user/process_server/route.h"
#include "user/process_server/service.h"

namespace herald::process_server {

class OperatorRequests {
  public:
    OperatorRequests(store::ObjectStore& store, vault::Catalog& catalog, DiskGates& gates,
                     const LastHeard& last_heard, const ServiceOptions& options)
        : store_(store),
          catalog_(catalog),
          gates_(gates),
          last_heard_(last_heard),
          options_(options) {}

    wire::ServerResponse disks();
    wire::ServerResponse points(const wire::RequestHead& head, const Route& route);
    wire::ServerResponse segments(const wire::RequestHead& head, const Route& route);
    wire::ServerResponse get_segment(const Route& route);
    wire::ServerResponse status(const wire::ServerCounters& counters);

  private:
    store::ObjectStore& store_;
    vault::Catalog& catalog_;
    DiskGates& gates_;
    const LastHeard& last_heard_;
    const ServiceOptions options_;
};

}  // namespace herald::process_server
