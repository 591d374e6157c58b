// SPDX-License-Identifier: Apache-2.0
#include "user/vault/catalog_schema.h"

#include "user/base/file.h"

namespace herald::vault {

namespace {

constexpr uint64_t kSchema = 1;

constexpr char kCreate[] = R"(
CREATE TABLE disks (
  disk BLOB PRIMARY KEY, machine BLOB NOT NULL, name TEXT NOT NULL, identity TEXT NOT NULL,
  disk_bytes INTEGER NOT NULL, epoch INTEGER NOT NULL, session BLOB NOT NULL,
  previous_session BLOB NOT NULL, head INTEGER NOT NULL, head_segment BLOB NOT NULL,
  segments INTEGER NOT NULL, stored_bytes INTEGER NOT NULL, raw_bytes INTEGER NOT NULL,
  points INTEGER NOT NULL, newest_point_ns INTEGER NOT NULL, state TEXT NOT NULL);
CREATE TABLE sessions (
  disk BLOB NOT NULL REFERENCES disks, session BLOB NOT NULL, epoch INTEGER NOT NULL,
  PRIMARY KEY (disk, session)) WITHOUT ROWID;
CREATE TABLE segments (
  disk BLOB NOT NULL REFERENCES disks, first_position INTEGER NOT NULL,
  last_position INTEGER NOT NULL, epoch INTEGER NOT NULL, segment BLOB NOT NULL,
  previous_segment BLOB NOT NULL, bytes INTEGER NOT NULL, raw_bytes INTEGER NOT NULL,
  digest BLOB NOT NULL, object TEXT NOT NULL,
  PRIMARY KEY (disk, first_position)) WITHOUT ROWID;
CREATE TABLE tags (
  disk BLOB NOT NULL REFERENCES disks, position INTEGER NOT NULL, id BLOB NOT NULL,
  time_ns INTEGER NOT NULL, kind INTEGER NOT NULL, consistency INTEGER NOT NULL,
  name TEXT NOT NULL, disk_bytes INTEGER NOT NULL, refusal TEXT NOT NULL,
  sent_total INTEGER NOT NULL, raw_total INTEGER NOT NULL,
  PRIMARY KEY (disk, position)) WITHOUT ROWID;
CREATE TABLE digests (
  disk BLOB NOT NULL REFERENCES disks, row INTEGER NOT NULL, digests BLOB NOT NULL,
  PRIMARY KEY (disk, row));
PRAGMA user_version = 1;
)";

}  // namespace

Result<Database> open_catalog_database(const std::filesystem::path& path) {
    // A fresh configuration starts without a step by hand.
    auto folder = make_dirs(path.parent_path());
    if (!folder) return pass(folder, "catalog");
    auto database = Database::open(path);
    if (!database) return pass(database);
    for (const char* setting :
         {"PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", "PRAGMA foreign_keys = ON",
          "PRAGMA journal_size_limit = 67108864", "PRAGMA cache_size = -8192"}) {
        auto done = database->execute(setting);
        if (!done) return pass(done, path.native());
    }
    auto schema = database->number_of("PRAGMA user_version");
    if (!schema) return pass(schema, path.native());
    if (*schema > kSchema) {
        return fail(ErrorKind::operator_needed,
                    "catalog {} has schema {}, this program knows up to {}: it was written by a "
                    "newer version; run that one",
                    path.native(), *schema, kSchema);
    }
    if (*schema == 0) {
        auto done = database->execute("BEGIN IMMEDIATE");
        if (done) done = database->execute(kCreate);
        if (done) done = database->execute("COMMIT");
        if (!done) return pass(done, path.native());
    }
    auto synced = sync_dir(path.parent_path());
    if (!synced) return pass(synced);
    return database;
}

}  // namespace herald::vault
