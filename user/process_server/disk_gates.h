// SPDX-License-Identifier: Apache-2.0
// DiskGates is the list of the disks this server takes segments for: one DiskGate each.
// Promise: a disk belongs to the machine that asked first; a machine has at most HERALD_DISKS_MAX.
// Callers: any thread. Owns: the gates and the queue they commit through.
#pragma once

#include <memory>

#include "user/process_server/disk_gate.h"
#include "user/process_server/responses.h"

namespace herald::process_server {

class DiskGates {
  public:
    using Found = tl::expected<std::shared_ptr<DiskGate>, wire::ServerResponse>;
    // A gate for each disk of the catalog.
    DiskGates(store::ObjectStore& store, vault::Catalog& catalog,
              std::span<const vault::DiskRow> rows);

    std::shared_ptr<DiskGate> find(const Uuid& disk);  // null when there is none
    // The disk, if it is this machine's.
    Found own(const Uuid& disk, const Uuid& machine);
    // A disk that asks for its first session gets a gate; its first grant registers it.
    Found own_or_new(const Uuid& disk, const Uuid& machine);

  private:
    store::ObjectStore& store_;
    vault::Catalog& catalog_;
    CommitQueue queue_;
    std::mutex lock_;  // level 0; guards gates_; left before a gate is used
    std::map<Uuid, std::shared_ptr<DiskGate>> gates_;
};

}  // namespace herald::process_server
