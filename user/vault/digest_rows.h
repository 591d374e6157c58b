// SPDX-License-Identifier: Apache-2.0
// DigestRows is how the catalog keeps a disk's digests: rows of 256 chunks (4 KiB), so that a
// scan's segment of 128 chunks changes one or two rows. One object gathers what one commit changes:
// a row is read when first touched and written by flush(). Callers: SqliteCatalog, inside its
// transaction. Memory: at most kDirtyRowsMax rows (4 MiB).
#pragma once

#include <map>

#include "user/vault/segment_effects.h"
#include "user/vault/sqlite.h"

namespace herald::vault {

class DigestRows {
  public:
    DigestRows(Database& database, const Uuid& disk) : database_(database), disk_(disk) {}
    Result<void> set(const DigestRun& run);
    Result<void> flush();
    // Exactly `count` digests; chunks never heard of are unknown.
    static Result<std::vector<Digest128>> read(Database& database, const Uuid& disk,
                                               uint64_t first_chunk, uint64_t count);

  private:
    Result<Bytes*> load(uint64_t row, bool overwritten);
    // Rows [first, end) become unknown: absent.
    Result<void> forget(uint64_t first, uint64_t end);

    Database& database_;
    const Uuid disk_;
    std::map<uint64_t, Bytes> rows_;
};

}  // namespace herald::vault
