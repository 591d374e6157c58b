// SPDX-License-Identifier: Apache-2.0
#include "user/process_server/restored_catalog.h"

#include <algorithm>

#include "user/process_server/garbage.h"
#include "user/process_server/upload.h"

namespace herald::process_server {

Result<RestoredCatalog> adopt_restored_catalog(store::ObjectStore& store, vault::Catalog& catalog,
                                               const Uuid& nobody, uint64_t now_s) {
    auto rows = catalog.disks();
    if (!rows) return pass(rows);
    if (rows->empty()) {
        return fail(ErrorKind::operator_needed,
                    "the catalog knows no disk: it is no backup of this store's catalog. Nothing "
                    "was changed; put the backup in its place");
    }
    auto checked = check_heads(store, catalog, *rows);
    if (!checked) return pass(checked);
    RestoredCatalog restored;
    restored.disks = rows->size();
    restored.epoch = now_s;
    auto listed = store.list("segments/", [&](const store::ObjectInfo& object) -> Result<void> {
        const auto place = parse_object_name(object.name);
        if (place) restored.epoch = std::max(restored.epoch, place->epoch + 1);
        return {};
    });
    if (!listed) return pass(listed);
    // The epochs first: what follows is not to be undone by a session that still writes.
    auto bumped = catalog.bump_epochs(restored.epoch, nobody);
    if (!bumped) return pass(bumped);
    auto removed = collect_garbage(store, catalog, Unknown::superseded);
    if (!removed) return pass(removed);
    restored.removed = *removed;
    return restored;
}

}  // namespace herald::process_server
