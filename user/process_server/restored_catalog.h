// SPDX-License-Identifier: Apache-2.0
// adopt_restored_catalog() makes a catalog that came back from a backup this store's catalog again:
// no session that was granted after the backup may write any more, and what the store holds beyond
// the backup goes.
// Promise: fenced: afterwards every disk's epoch is above all that were ever granted for it: above
// those of the store's objects, and at least the seconds since 1970, which grants never outrun
// (replicators back off; the first epoch is 1). It belongs to a session of nobody, so that each
// replicator compares digests and sends what differs.
// Callers: one process that holds the store's lock, before the first request.
// Failure: operator_needed when the catalog knows no disk, or names segments that the store lacks:
// it is not a backup of this store's catalog, and nothing was changed. After a crash: run it again.
#pragma once

#include "user/store/object_store.h"
#include "user/vault/catalog.h"

namespace herald::process_server {

struct RestoredCatalog {
    uint64_t disks = 0;
    uint64_t epoch = 0;    // every disk's is at least this now
    uint64_t removed = 0;  // objects
};

// nobody: a fresh id. now_s: seconds since 1970.
Result<RestoredCatalog> adopt_restored_catalog(store::ObjectStore& store, vault::Catalog& catalog,
                                               const Uuid& nobody, uint64_t now_s);

}  // namespace herald::process_server
