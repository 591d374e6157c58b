// SPDX-License-Identifier: Apache-2.0
// The catalog's queries and what their rows become: each query stands beside the reader that knows
// its columns. Callers: SqliteCatalog, under its lock.
// Failure: corrupt when a disk's state does not parse.
#pragma once

#include "user/vault/catalog.h"
#include "user/vault/sqlite.h"

namespace herald::vault {

// One disk; all of them by name.
extern const char kSelectDisk[];
extern const char kSelectDisks[];
Result<DiskRow> read_disk(const Statement& row);

// The segment that begins at a position; those that end after one, with a limit.
extern const char kSelectSegment[];
extern const char kSelectSegments[];
SegmentRow read_segment(const Statement& row);
Result<void> add_segment(Database& database, const Uuid& disk, const SegmentRow& segment);

// Recovery points with running totals, oldest first; refused tags, newest first, with a limit.
extern const char kSelectPoints[];
extern const char kSelectRefused[];
Result<std::vector<PointRow>> read_tags(Statement& query);
// With the disk's totals so far, this segment included.
Result<void> add_tag(Database& database, const DiskRow& disk, const PointRow& tag);

}  // namespace herald::vault
