// SPDX-License-Identifier: Apache-2.0
// collect_garbage() removes the objects that no row of the catalog refers to: what a crash left
// between put and commit. It runs before the first request is taken.
// Promise: nothing a row refers to is removed. Objects that no crash can leave (of a disk or epoch
// the catalog never heard of, or too many) mean that the catalog is not this store's, or older:
// then nothing at all is removed and the error says so. So it does when the newest segment of a
// disk is not in the store: the catalog's store is elsewhere, perhaps not mounted.
#pragma once

#include "user/store/object_store.h"
#include "user/vault/catalog.h"

namespace herald::process_server {

enum class Unknown {
    suspicious,  // what no crash can leave is refused
    superseded,  // an operator says that the catalog is a backup: all of it goes
};
// How many objects were removed.
Result<uint64_t> collect_garbage(store::ObjectStore& store, vault::Catalog& catalog,
                                 Unknown unknown = Unknown::suspicious);
// The newest segment of every disk is in the store, or an error that names the first that is not.
Result<void> check_heads(store::ObjectStore& store, vault::Catalog& catalog,
                         std::span<const vault::DiskRow> rows);

}  // namespace herald::process_server
