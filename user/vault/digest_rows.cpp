// SPDX-License-Identifier: Apache-2.0
#include "user/vault/digest_rows.h"

#include <algorithm>

#include "herald/limits.h"

namespace herald::vault {

namespace {

constexpr uint64_t kChunksPerRow = 256;
constexpr size_t kDigestBytes = 16;
// Rows changed in memory before they are written: 4 MiB.
constexpr size_t kDirtyRowsMax = 1024;

}  // namespace

Result<void> DigestRows::set(const DigestRun& run) {
    const uint64_t end = run.first_chunk + run.chunks;
    uint64_t chunk = run.first_chunk;
    while (chunk < end) {
        const uint64_t row = chunk / kChunksPerRow;
        const uint64_t row_end = std::min(end, (row + 1) * kChunksPerRow);
        const bool whole_row = chunk % kChunksPerRow == 0 && row_end % kChunksPerRow == 0;
        if (run.digest.is_unknown() && whole_row) {
            auto forgotten = forget(row, end / kChunksPerRow);
            if (!forgotten) return forgotten;
            chunk = end / kChunksPerRow * kChunksPerRow;
            continue;
        }
        auto bytes = load(row, whole_row);
        if (!bytes) return pass(bytes);
        for (; chunk < row_end; ++chunk) {
            std::memcpy((*bytes)->data() + chunk % kChunksPerRow * kDigestBytes,
                        run.digest.bytes.data(), kDigestBytes);
        }
    }
    return {};
}

Result<void> DigestRows::flush() {
    for (const auto& [row, bytes] : rows_) {
        auto done = database_
                        .prepare(
                            "INSERT INTO digests VALUES (?, ?, ?) ON CONFLICT (disk, row)"
                            " DO UPDATE SET digests = excluded.digests")
                        .bind(disk_)
                        .bind(row)
                        .bind_bytes(bytes)
                        .run();
        if (!done) return done;
    }
    rows_.clear();
    return {};
}

Result<Bytes*> DigestRows::load(uint64_t row, bool overwritten) {
    const auto known = rows_.find(row);
    if (known != rows_.end()) return &known->second;
    if (rows_.size() >= kDirtyRowsMax) {
        auto flushed = flush();
        if (!flushed) return pass(flushed);
    }
    Bytes bytes(kChunksPerRow * kDigestBytes);
    if (!overwritten) {
        Statement query =
            database_.prepare("SELECT digests FROM digests WHERE disk = ? AND row = ?");
        auto found = query.bind(disk_).bind(row).step();
        if (!found) return pass(found);
        if (*found && query.bytes(0).size() == bytes.size()) {
            std::memcpy(bytes.data(), query.bytes(0).data(), bytes.size());
        }
    }
    return &(rows_[row] = std::move(bytes));
}

Result<void> DigestRows::forget(uint64_t first, uint64_t end) {
    rows_.erase(rows_.lower_bound(first), rows_.lower_bound(end));
    return database_.prepare("DELETE FROM digests WHERE disk = ? AND row >= ? AND row < ?")
        .bind(disk_)
        .bind(first)
        .bind(end)
        .run();
}

Result<std::vector<Digest128>> DigestRows::read(Database& database, const Uuid& disk,
                                                uint64_t first_chunk, uint64_t count) {
    if (count > HERALD_DIGESTS_PER_REQUEST_MAX || first_chunk > uint64_t(INT64_MAX)) {
        return fail(ErrorKind::operator_needed, "at most {} digests can be asked for at once",
                    HERALD_DIGESTS_PER_REQUEST_MAX);
    }
    std::vector<Digest128> digests(count);
    if (count == 0) return digests;
    Statement query =
        database.prepare("SELECT row, digests FROM digests WHERE disk = ? AND row BETWEEN ? AND ?");
    query.bind(disk)
        .bind(first_chunk / kChunksPerRow)
        .bind((first_chunk + count - 1) / kChunksPerRow);
    for (;;) {
        auto row = query.step();
        if (!row) return pass(row);
        if (!*row) return digests;
        const uint64_t base = query.number(0) * kChunksPerRow;
        const ByteView bytes = query.bytes(1);
        if (bytes.size() != kChunksPerRow * kDigestBytes) continue;
        for (uint64_t i = 0; i < kChunksPerRow; ++i) {
            if (base + i < first_chunk || base + i - first_chunk >= count) continue;
            std::memcpy(digests[base + i - first_chunk].bytes.data(),
                        bytes.data() + i * kDigestBytes, kDigestBytes);
        }
    }
}

}  // namespace herald::vault
