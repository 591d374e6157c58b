// SPDX-License-Identifier: Apache-2.0
#include "user/process_server/garbage.h"

#include <cerrno>
#include <map>

#include "user/process_server/upload.h"

namespace herald::process_server {

namespace {

tl::unexpected<Error> refuse(const std::string& object, std::string_view why) {
    return fail(ErrorKind::operator_needed,
                "store: object {} {}: the catalog is not this store's, or an older copy of it. "
                "Nothing was removed; give the right catalog, or run once with --restored-catalog "
                "if it was restored from a backup on purpose",
                object, why);
}

// Durable before its row was: if the newest segment is not there, neither is the rest, and what is
// stored now would be hidden when the store comes back.
Result<void> check_head(store::ObjectStore& store, vault::Catalog& catalog,
                        const vault::DiskRow& disk) {
    if (disk.head == 0) return {};
    auto head = catalog.segments(disk.disk, disk.head - 1, 1);
    if (!head) return pass(head);
    if (head->empty()) return {};
    auto object = store.stat(head->front().object);
    if (object) return {};
    if (object.error().sys != ENOENT) return pass(object);
    return fail(ErrorKind::operator_needed,
                "store: the newest segment of disk {} ({}) is not in it, object {}: is the store's "
                "file system mounted, and is it the catalog's? Nothing was changed; give the store "
                "that belongs to the catalog",
                to_string(disk.disk), disk.name, head->front().object);
}

}  // namespace

Result<void> check_heads(store::ObjectStore& store, vault::Catalog& catalog,
                         std::span<const vault::DiskRow> rows) {
    for (const vault::DiskRow& row : rows) {
        auto there = check_head(store, catalog, row);
        if (!there) return there;
    }
    return {};
}

Result<uint64_t> collect_garbage(store::ObjectStore& store, vault::Catalog& catalog,
                                 Unknown unknown) {
    auto rows = catalog.disks();
    if (!rows) return pass(rows);
    auto there = check_heads(store, catalog, *rows);
    if (!there) return pass(there);
    std::map<Uuid, uint64_t> epochs;
    for (const vault::DiskRow& row : *rows) epochs[row.disk] = row.epoch;
    const bool suspicious = unknown == Unknown::suspicious;
    std::map<Uuid, std::vector<std::string>> garbage;
    auto listed = store.list("segments/", [&](const store::ObjectInfo& object) -> Result<void> {
        const auto place = parse_object_name(object.name);
        if (!place) return {};  // not ours: left alone
        const auto epoch = epochs.find(place->disk);
        if (suspicious && epoch == epochs.end()) {
            return refuse(object.name, "is of a disk not in the catalog");
        }
        if (suspicious && place->epoch > epoch->second) {
            return refuse(object.name, "is of a session that the catalog never granted");
        }
        auto row = catalog.segment(place->disk, place->first);
        if (!row) return pass(row);
        if (*row && (*row)->object == object.name) return {};
        auto& names = garbage[place->disk];
        if (suspicious && names.size() >= HERALD_GARBAGE_PER_DISK_MAX) {
            return refuse(object.name, "is one of too many that the catalog does not know");
        }
        names.push_back(object.name);
        return {};
    });
    if (!listed) return pass(listed);
    uint64_t removed = 0;
    for (const auto& [disk, names] : garbage) {
        for (const std::string& name : names) {
            auto done = store.remove(name);
            if (!done) return pass(done);
            ++removed;
        }
    }
    return removed;
}

}  // namespace herald::process_server
