// SPDX-License-Identifier: Apache-2.0
// The catalog in SQLite. One connection and one lock: a commit is one fsync of the write-ahead
// log, and callers batch (commit() takes many).
#include <algorithm>
#include <mutex>

#include "user/base/crash_point.h"
#include "user/vault/catalog_rows.h"
#include "user/vault/catalog_schema.h"
#include "user/vault/digest_rows.h"

namespace herald::vault {

namespace {

class SqliteCatalog : public Catalog {
  public:
    SqliteCatalog(Database database, std::filesystem::path folder)
        : folder_(std::move(folder)), database_(std::move(database)) {}

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

    Result<void> bump_epochs(uint64_t at_least, const Uuid& nobody) override {
        const std::lock_guard hold(lock_);
        return transaction([&]() -> Result<void> {
            auto bumped = database_
                              .prepare(
                                  "UPDATE disks SET epoch = max(epoch + 1, ?),"
                                  " previous_session = session, session = ?")
                              .bind(at_least)
                              .bind(nobody)
                              .run();
            if (!bumped) return bumped;
            return database_.prepare("INSERT INTO sessions SELECT disk, session, epoch FROM disks")
                .run();
        });
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
        return DigestRows::read(database_, disk, first_chunk, count);
    }

    Result<store::StoreSpace> space() override { return store::filesystem_space(folder_); }

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
        reply.grant.complete = row.state.complete();
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
        auto added = add_segment(database_, commit.disk, segment);
        if (!added) return pass(added);
        disk.stored_bytes += segment.bytes;
        disk.raw_bytes += segment.raw_bytes;
        for (const TagVerdict& verdict : commit.tags) {
            if (verdict.refusal.empty()) {
                disk.points += 1;
                disk.newest_point_ns = std::max(disk.newest_point_ns, verdict.tag.time_ns);
            }
            // With running totals; points() subtracts.
            auto tagged = add_tag(database_, disk, to_row(verdict));
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

    std::mutex lock_;  // level 3; guards database_
    const std::filesystem::path folder_;
    Database database_;
};

}  // namespace

Result<std::unique_ptr<Catalog>> open_sqlite_catalog(const std::filesystem::path& path) {
    auto database = open_catalog_database(path);
    if (!database) return pass(database);
    return std::unique_ptr<Catalog>(
        std::make_unique<SqliteCatalog>(std::move(*database), path.parent_path()));
}

}  // namespace herald::vault
