// SPDX-License-Identifier: Apache-2.0
#include "user/process_server/disk_gates.h"

#include "user/wire/messages.h"

namespace herald::process_server {

namespace {

Refusal another_machines(const Uuid& disk) {
    return refuse(403, wire::kErrorForbidden,
                  fmt::format("disk {} is another machine's", to_string(disk)));
}

}  // namespace

DiskGates::DiskGates(store::ObjectStore& store, vault::Catalog& catalog,
                     std::span<const vault::DiskRow> rows)
    : store_(store), catalog_(catalog), queue_(catalog) {
    for (const vault::DiskRow& row : rows) {
        gates_[row.disk] = std::make_shared<DiskGate>(row, store_, catalog_, queue_);
    }
}

std::shared_ptr<DiskGate> DiskGates::find(const Uuid& disk) {
    const std::lock_guard hold(lock_);
    const auto found = gates_.find(disk);
    return found == gates_.end() ? nullptr : found->second;
}

DiskGates::Found DiskGates::own(const Uuid& disk, const Uuid& machine) {
    auto gate = find(disk);
    if (!gate) {
        return refuse(
            404, wire::kErrorNotFound,
            fmt::format("disk {} is not known; ask for a session first", to_string(disk)));
    }
    if (gate->machine() != machine) return another_machines(disk);
    return gate;
}

DiskGates::Found DiskGates::own_or_new(const Uuid& disk, const Uuid& machine) {
    const std::lock_guard hold(lock_);
    const auto found = gates_.find(disk);
    if (found != gates_.end()) {
        if (found->second->machine() != machine) return another_machines(disk);
        return found->second;
    }
    size_t of_machine = 0;
    for (const auto& [id, gate] : gates_) of_machine += gate->machine() == machine;
    if (of_machine >= HERALD_DISKS_MAX) {
        return refuse(403, wire::kErrorForbidden,
                      fmt::format("machine {} has {} disks already, more are not taken",
                                  to_string(machine), of_machine));
    }
    vault::DiskRow row;
    row.disk = disk;
    row.machine = machine;
    return gates_[disk] = std::make_shared<DiskGate>(row, store_, catalog_, queue_);
}

}  // namespace herald::process_server
