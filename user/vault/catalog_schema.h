// SPDX-License-Identifier: Apache-2.0
// open_catalog_database() opens the catalog's SQLite file as the catalog needs it: write-ahead log,
// synchronous=FULL; its folders and the tables are made when it is new.
// Promise: when it returns, the file and its folders have their names durably. Failure:
// operator_needed when a newer version wrote it.
#pragma once

#include "user/vault/sqlite.h"

namespace herald::vault {

Result<Database> open_catalog_database(const std::filesystem::path& path);

}  // namespace herald::vault
