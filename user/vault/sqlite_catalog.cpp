// SPDX-License-Identifier: Apache-2.0
// The catalog in SQLite. One connection and one lock: a commit is one fsync of the write-ahead
// log, and callers batch (commit() takes many). Digests are kept in rows of 256 chunks (4 KiB), so
// that a scan's segment of 128 chunks changes one or two rows.
// Longer than most files: schema, rows and the one conditional transaction are read together.
#include <algorithm>
#include <map>
#include <mutex>

#include "user/base/crash_point.h"
#include "user/base/file.h"
#include "user/vault/catalog.h"
#include "user/vault/sqlite.h"

namespace herald::vault {

namespace {

constexpr uint64_t kSchema = 1;
constexpr uint64_t kChunksPerRow = 256;
constexpr size_t kDigestBytes = 16;
// Digest rows changed in memory before they are written: 4 MiB.
constexpr size_t kDirtyRowsMax = 1024;

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

constexpr char kSelectDisk[] =
    "SELECT disk, machine, name, identity, disk_bytes, epoch, session, previous_session, head,"
    " head_segment, segments, stored_bytes, raw_bytes, points, newest_point_ns, state"
    " FROM disks WHERE disk = ?";
constexpr char kSelectDisks[] =
    "SELECT disk, machine, name, identity, disk_bytes, epoch, session, previous_session, head,"
    " head_segment, segments, stored_bytes, raw_bytes, points, newest_point_ns, state"
    " FROM disks ORDER BY name, disk";
constexpr char kSelectSegment[] =
    "SELECT first_position, last_position, epoch, segment, previous_segment, bytes, raw_bytes,"
    " digest, object FROM segments WHERE disk = ? AND first_position = ?";
// Segments do not overlap: the first of interest is the last that begins at or before `after`.
constexpr char kSelectSegments[] =
    "SELECT first_position, last_position, epoch, segment, previous_segment, bytes, raw_bytes,"
    " digest, object FROM segments WHERE disk = ?1 AND last_position > ?2 AND first_position >="
    " (SELECT coalesce(max(first_position), 0) FROM segments"
    "  WHERE disk = ?1 AND first_position <= ?2)"
    " ORDER BY first_position LIMIT ?3";
constexpr char kSelectPoints[] =
    "SELECT id, position, time_ns, kind, consistency, name, disk_bytes, refusal, sent_total,"
    " raw_total FROM tags WHERE disk = ? AND refusal = '' ORDER BY position";
constexpr char kSelectRefused[] =
    "SELECT id, position, time_ns, kind, consistency, name, disk_bytes, refusal, 0, 0"
    " FROM tags WHERE disk = ? AND refusal <> '' ORDER BY position DESC LIMIT ?";

Result<DiskRow> read_disk(const Statement& row) {
    DiskRow disk;
    disk.disk = row.id(0);
    disk.machine = row.id(1);
    disk.name = row.text(2);
    disk.identity = row.text(3);
    disk.disk_bytes = row.number(4);
    disk.epoch = row.number(5);
    disk.session = row.id(6);
    disk.previous_session = row.id(7);
    disk.head = row.number(8);
    disk.head_segment = row.id(9);
    disk.segments = row.number(10);
    disk.stored_bytes = row.number(11);
    disk.raw_bytes = row.number(12);
    disk.points = row.number(13);
    disk.newest_point_ns = row.number(14);
    auto state = StreamState::parse(row.text(15));
    if (!state) return pass(state, fmt::format("catalog: disk {}", to_string(disk.disk)));
    disk.state = std::move(*state);
    return disk;
}

SegmentRow read_segment(const Statement& row) {
    SegmentRow segment;
    segment.first_position = row.number(0);
    segment.last_position = row.number(1);
    segment.epoch = row.number(2);
    segment.segment = row.id(3);
    segment.previous_segment = row.id(4);
    segment.bytes = row.number(5);
    segment.raw_bytes = row.number(6);
    segment.digest = row.digest(7);
    segment.object = row.text(8);
    return segment;
}

PointRow read_tag(const Statement& row) {
    PointRow tag;
    tag.id = row.id(0);
    tag.position = row.number(1);
    tag.time_ns = row.number(2);
    tag.kind = hrl::TagKind(row.number(3));
    tag.consistency = hrl::Consistency(row.number(4));
    tag.name = row.text(5);
    tag.disk_bytes = row.number(6);
    tag.refusal = row.text(7);
    tag.sent_bytes = row.number(8);
    tag.raw_bytes = row.number(9);
    return tag;
}

// The digest rows that one commit changes: read when first touched, written at the end.
class DigestRows {
  public:
    DigestRows(Database& database, const Uuid& disk) : database_(database), disk_(disk) {}

    Result<void> set(const DigestRun& run) {
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

    Result<void> flush() {
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

  private:
    Result<Bytes*> load(uint64_t row, bool overwritten) {
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

    // Rows [first, end) become unknown: absent.
    Result<void> forget(uint64_t first, uint64_t end) {
        rows_.erase(rows_.lower_bound(first), rows_.lower_bound(end));
        return database_.prepare("DELETE FROM digests WHERE disk = ? AND row >= ? AND row < ?")
            .bind(disk_)
            .bind(first)
            .bind(end)
            .run();
    }

    Database& database_;
    Uuid disk_;
    std::map<uint64_t, Bytes> rows_;
};

class SqliteCatalog : public Catalog {
  public:
    explicit SqliteCatalog(Database database) : database_(std::move(database)) {}

    Result<GrantReply> grant(const Uuid& disk, const Uuid& machine,
                             const wire::SessionRequest& request) override {
        const std::lock_guard hold(lock_);
        GrantReply reply;
        auto done = transaction([&] { return grant_locked(disk, machine, request, reply); });
        if (!done) return pass(done);
        return reply;
    }

    Result<std::vector<CatalogOutcome>> commit(std::span<const Commit> commits) override {
        const std::lock_guard hold(lock_);
        std::vector<CatalogOutcome> outcomes;
        auto done = transaction([&]() -> Result<void> {
            for (const Commit& commit : commits) {
                auto outcome = commit_locked(commit);
                if (!outcome) return pass(outcome);
                outcomes.push_back(*outcome);
            }
            return {};
        });
        if (!done) return pass(done);
        return outcomes;
    }

    Result<std::vector<DiskRow>> disks() override {
        const std::lock_guard hold(lock_);
        std::vector<DiskRow> disks;
        Statement query = database_.prepare(kSelectDisks);
        for (;;) {
            auto row = query.step();
            if (!row) return pass(row);
            if (!*row) return disks;
            auto disk = read_disk(query);
            if (!disk) return pass(disk);
            disks.push_back(std::move(*disk));
        }
    }

    Result<std::optional<DiskRow>> disk(const Uuid& disk) override {
        const std::lock_guard hold(lock_);
        return disk_locked(disk);
    }

    Result<std::vector<PointRow>> points(const Uuid& disk) override {
        const std::lock_guard hold(lock_);
        Statement query = database_.prepare(kSelectPoints);
        query.bind(disk);
        auto points = read_tags(query);
        if (!points) return points;
        uint64_t sent = 0;
        uint64_t raw = 0;
        for (PointRow& point : *points) {
            point.sent_bytes -= std::exchange(sent, point.sent_bytes);
            point.raw_bytes -= std::exchange(raw, point.raw_bytes);
        }
        return points;
    }

    Result<std::vector<PointRow>> refused_tags(const Uuid& disk, size_t limit) override {
        const std::lock_guard hold(lock_);
        Statement query = database_.prepare(kSelectRefused);
        query.bind(disk).bind(uint64_t(limit));
        return read_tags(query);
    }

    Result<std::vector<SegmentRow>> segments(const Uuid& disk, uint64_t after,
                                             size_t limit) override {
        const std::lock_guard hold(lock_);
        std::vector<SegmentRow> rows;
        // SQLite compares as signed: no position is that large.
        if (after > uint64_t(INT64_MAX)) return rows;
        Statement query = database_.prepare(kSelectSegments);
        query.bind(disk).bind(after).bind(uint64_t(limit));
        for (;;) {
            auto row = query.step();
            if (!row) return pass(row);
            if (!*row) return rows;
            rows.push_back(read_segment(query));
        }
    }

    Result<std::optional<SegmentRow>> segment(const Uuid& disk, uint64_t first) override {
        const std::lock_guard hold(lock_);
        return segment_locked(disk, first);
    }

    Result<std::vector<Digest128>> digests(const Uuid& disk, uint64_t first_chunk,
                                           uint64_t count) override {
        const std::lock_guard hold(lock_);
        if (count > HERALD_DIGESTS_PER_REQUEST_MAX || first_chunk > uint64_t(INT64_MAX)) {
            return fail(ErrorKind::operator_needed, "at most {} digests can be asked for at once",
                        HERALD_DIGESTS_PER_REQUEST_MAX);
        }
        std::vector<Digest128> digests(count);
        if (count == 0) return digests;
        Statement query = database_.prepare(
            "SELECT row, digests FROM digests WHERE disk = ? AND row BETWEEN ? AND ?");
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

  private:
    // Runs the body in one transaction; any error of the body or of the commit undoes all of it.
    template <class Body>
    Result<void> transaction(Body body) {
        auto done = database_.execute("BEGIN IMMEDIATE");
        if (!done) return done;
        done = body();
        if (done) {
            crash_point("catalog.before_commit");
            done = database_.execute("COMMIT");
        }
        if (!done) {
            // Fails when SQLite has rolled back already, which is as good.
            (void)database_.execute("ROLLBACK");
            return done;
        }
        crash_point("catalog.after_commit");
        return {};
    }

    Result<std::optional<DiskRow>> disk_locked(const Uuid& disk) {
        Statement query = database_.prepare(kSelectDisk);
        auto row = query.bind(disk).step();
        if (!row) return pass(row);
        if (!*row) return std::optional<DiskRow>();
        auto read = read_disk(query);
        if (!read) return pass(read);
        return std::optional(std::move(*read));
    }

    Result<std::optional<SegmentRow>> segment_locked(const Uuid& disk, uint64_t first) {
        Statement query = database_.prepare(kSelectSegment);
        auto row = query.bind(disk).bind(first).step();
        if (!row) return pass(row);
        if (!*row) return std::optional<SegmentRow>();
        return std::optional(read_segment(query));
    }

    static Result<std::vector<PointRow>> read_tags(Statement& query) {
        std::vector<PointRow> tags;
        for (;;) {
            auto row = query.step();
            if (!row) return pass(row);
            if (!*row) return tags;
            tags.push_back(read_tag(query));
        }
    }

    Result<void> grant_locked(const Uuid& disk, const Uuid& machine,
                              const wire::SessionRequest& request, GrantReply& reply) {
        auto known = disk_locked(disk);
        if (!known) return pass(known);
        DiskRow row;
        if (*known) {
            row = **known;
        } else {
            auto added = database_
                             .prepare(
                                 "INSERT INTO disks VALUES (?, ?, '', '', 0, 0, ?, ?, 0, ?,"
                                 " 0, 0, 0, 0, 0, ?)")
                             .bind(disk)
                             .bind(machine)
                             .bind(Uuid{})
                             .bind(Uuid{})
                             .bind(Uuid{})
                             .bind(row.state.serialize())
                             .run();
            if (!added) return added;
            row.machine = machine;
        }
        if (row.machine != machine) {
            reply.outcome = CatalogOutcome::forbidden;
            return {};
        }
        if (row.session != request.session) {
            Statement query =
                database_.prepare("SELECT epoch FROM sessions WHERE disk = ? AND session = ?");
            auto superseded = query.bind(disk).bind(request.session).step();
            if (!superseded) return pass(superseded);
            if (*superseded) {
                reply.outcome = CatalogOutcome::fenced;
                return {};
            }
            row.epoch += 1;
            row.previous_session = row.session;
            row.session = request.session;
            auto added = database_.prepare("INSERT INTO sessions VALUES (?, ?, ?)")
                             .bind(disk)
                             .bind(row.session)
                             .bind(row.epoch)
                             .run();
            if (!added) return added;
        } else {
            // Whoever does not know yet that a session is theirs has sent nothing in it: one that
            // is asked for again after it stored something is a clone's, or a reverted machine's.
            Statement newest = database_.prepare(
                "SELECT 1 FROM segments WHERE disk = ?1 AND epoch = ?2 AND first_position ="
                " (SELECT max(first_position) FROM segments WHERE disk = ?1)");
            auto used = newest.bind(disk).bind(row.epoch).step();
            if (!used) return pass(used);
            if (*used) {
                reply.outcome = CatalogOutcome::fenced;
                return {};
            }
        }
        auto updated = database_
                           .prepare(
                               "UPDATE disks SET name = ?, identity = ?, disk_bytes = ?,"
                               " epoch = ?, session = ?, previous_session = ? WHERE disk = ?")
                           .bind(request.name)
                           .bind(request.identity)
                           .bind(request.disk_bytes)
                           .bind(row.epoch)
                           .bind(row.session)
                           .bind(row.previous_session)
                           .bind(disk)
                           .run();
        if (!updated) return updated;
        Statement any = database_.prepare("SELECT 1 FROM digests WHERE disk = ? LIMIT 1");
        auto digests = any.bind(disk).step();
        if (!digests) return pass(digests);
        reply.grant.epoch = row.epoch;
        reply.grant.head = row.head;
        reply.grant.head_segment = row.head_segment;
        reply.grant.previous_session = row.previous_session;
        Statement newest = database_.prepare(
            "SELECT epoch FROM segments WHERE disk = ? ORDER BY first_position DESC LIMIT 1");
        auto head = newest.bind(disk).step();
        if (!head) return pass(head);
        if (*head) reply.grant.head_epoch = newest.number(0);
        reply.grant.digests = *digests;
        return {};
    }

    Result<CatalogOutcome> commit_locked(const Commit& commit) {
        auto known = disk_locked(commit.disk);
        if (!known) return pass(known);
        if (!*known) return CatalogOutcome::not_found;
        DiskRow& disk = **known;
        const SegmentRow& segment = commit.segment;
        if (segment.epoch != disk.epoch) return CatalogOutcome::fenced;
        if (segment.first_position != disk.head + 1 || segment.last_position <= disk.head ||
            segment.previous_segment != disk.head_segment) {
            // A commit that failed after it had become durable is asked for again.
            auto same = segment_locked(commit.disk, segment.first_position);
            if (!same) return pass(same);
            return *same && **same == segment ? CatalogOutcome::done : CatalogOutcome::diverged;
        }
        auto added = database_.prepare("INSERT INTO segments VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
                         .bind(commit.disk)
                         .bind(segment.first_position)
                         .bind(segment.last_position)
                         .bind(segment.epoch)
                         .bind(segment.segment)
                         .bind(segment.previous_segment)
                         .bind(segment.bytes)
                         .bind(segment.raw_bytes)
                         .bind_bytes(segment.digest.bytes)
                         .bind(segment.object)
                         .run();
        if (!added) return pass(added);
        disk.stored_bytes += segment.bytes;
        disk.raw_bytes += segment.raw_bytes;
        for (const TagVerdict& verdict : commit.tags) {
            auto tagged = add_tag(disk, to_row(verdict));
            if (!tagged) return pass(tagged);
        }
        if (commit.state) disk.state = *commit.state;
        auto updated =
            database_
                .prepare(
                    "UPDATE disks SET head = ?, head_segment = ?, segments = segments + 1,"
                    " stored_bytes = ?, raw_bytes = ?, points = ?, newest_point_ns = ?,"
                    " state = ? WHERE disk = ?")
                .bind(segment.last_position)
                .bind(segment.segment)
                .bind(disk.stored_bytes)
                .bind(disk.raw_bytes)
                .bind(disk.points)
                .bind(disk.newest_point_ns)
                .bind(disk.state.serialize())
                .bind(commit.disk)
                .run();
        if (!updated) return pass(updated);
        DigestRows rows(database_, commit.disk);
        for (const DigestRun& run : commit.digests) {
            auto set = rows.set(run);
            if (!set) return pass(set);
        }
        auto flushed = rows.flush();
        if (!flushed) return pass(flushed);
        return CatalogOutcome::done;
    }

    // Counts the tag into its disk's row, too. Totals are running ones; points() subtracts.
    Result<void> add_tag(DiskRow& disk, const PointRow& tag) {
        if (tag.refusal.empty()) {
            disk.points += 1;
            disk.newest_point_ns = std::max(disk.newest_point_ns, tag.time_ns);
        }
        return database_.prepare("INSERT INTO tags VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
            .bind(disk.disk)
            .bind(tag.position)
            .bind(tag.id)
            .bind(tag.time_ns)
            .bind(uint64_t(tag.kind))
            .bind(uint64_t(tag.consistency))
            .bind(tag.name)
            .bind(tag.disk_bytes)
            .bind(tag.refusal)
            .bind(disk.stored_bytes)
            .bind(disk.raw_bytes)
            .run();
    }

    std::mutex lock_;  // level 3; guards database_
    Database database_;
};

}  // namespace

Result<std::unique_ptr<Catalog>> open_sqlite_catalog(const std::filesystem::path& path) {
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
    return std::unique_ptr<Catalog>(std::make_unique<SqliteCatalog>(std::move(*database)));
}

}  // namespace herald::vault
