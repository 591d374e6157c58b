// SPDX-License-Identifier: Apache-2.0
// Catalog: which disks, sessions (epochs), segments and recovery points there are, and the digests
// of every disk's newest state. A segment exists only because a row here says so.
// Promise: fenced: commit() changes something only when its epoch is the disk's newest and its
// first position follows the head; all of a commit becomes durable in one step, or nothing.
// Callers: any thread. The same conformance suite runs against every catalog.
// Failure: an outcome says what the caller did wrong; an Error that the catalog itself has trouble
// (retry: nothing was changed; a full disk has sys == ENOSPC).
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <span>

#include "herald/limits.h"
#include "user/store/object_store.h"
#include "user/vault/segment_effects.h"
#include "user/wire/message_structs.h"

namespace herald::vault {

struct DiskRow {
    Uuid disk;
    Uuid machine;
    std::string name;
    std::string identity;
    uint64_t disk_bytes = 0;
    uint64_t epoch = 0;
    Uuid session;           // of the newest epoch
    Uuid previous_session;  // of the epoch before
    uint64_t head = 0;      // newest position; 0: none
    Uuid head_segment;      // the segment that ends there
    uint64_t segments = 0;
    uint64_t stored_bytes = 0;
    uint64_t raw_bytes = 0;
    uint64_t points = 0;
    uint64_t newest_point_ns = 0;
    StreamState state;
};

struct SegmentRow {
    uint64_t first_position = 0;
    uint64_t last_position = 0;
    uint64_t epoch = 0;
    Uuid segment;
    Uuid previous_segment;
    uint64_t bytes = 0;
    uint64_t raw_bytes = 0;
    Digest128 digest;    // XXH3-128 of the file
    std::string object;  // its name in the store
    bool operator==(const SegmentRow&) const = default;
};

// A tag that landed, or was refused.
struct PointRow {
    Uuid id;
    uint64_t position = 0;
    uint64_t time_ns = 0;
    hrl::TagKind kind = hrl::TagKind::manual;
    hrl::Consistency consistency = hrl::Consistency::filesystem;
    std::string name;
    uint64_t disk_bytes = 0;
    std::string refusal;      // empty: a recovery point
    uint64_t sent_bytes = 0;  // since the point before; filled in by points()
    uint64_t raw_bytes = 0;
};

PointRow to_row(const TagVerdict& verdict);
wire::DiskInfo to_info(const DiskRow& row);
wire::SegmentInfo to_info(const SegmentRow& row);
wire::PointInfo to_info(const PointRow& row);

enum class CatalogOutcome {
    done,
    forbidden,  // the disk belongs to another machine
    fenced,     // the epoch or session is not the newest
    diverged,   // first position or previous segment does not follow the head
    not_found,  // no such disk
};
const char* to_string(CatalogOutcome outcome);

struct GrantReply {
    CatalogOutcome outcome = CatalogOutcome::done;
    wire::SessionGrant grant;  // window_segments is the server's to fill in
};

// Borrowed parts stay valid during the call.
struct Commit {
    Uuid disk;
    SegmentRow segment;  // its epoch is the condition
    std::span<const TagVerdict> tags;
    const StreamState* state = nullptr;  // after the segment
    std::span<const DigestRun> digests;
};

class Catalog {
  public:
    virtual ~Catalog() = default;
    // A disk is registered at its first request and from then on belongs to that machine. The
    // newest session asked for again is granted again, until it stored something; after that, and
    // when it was superseded, it is fenced.
    virtual Result<GrantReply> grant(const Uuid& disk, const Uuid& machine,
                                     const wire::SessionRequest& request) = 0;
    // All in one durable step; an outcome other than done leaves out that commit alone. Commits of
    // one disk are taken in the order given.
    virtual Result<std::vector<CatalogOutcome>> commit(std::span<const Commit> commits) = 0;

    // After a restore from a backup: every disk's epoch becomes at_least or the next, whichever is
    // greater, and belongs to `nobody`, a session that no replicator has. All in one durable step.
    virtual Result<void> bump_epochs(uint64_t at_least, const Uuid& nobody) = 0;

    virtual Result<std::vector<DiskRow>> disks() = 0;  // by name, then id
    virtual Result<std::optional<DiskRow>> disk(const Uuid& disk) = 0;
    // Recovery points, oldest first.
    virtual Result<std::vector<PointRow>> points(const Uuid& disk) = 0;
    // Tags that are no recovery points, newest first, each with its reason.
    virtual Result<std::vector<PointRow>> refused_tags(const Uuid& disk, size_t limit) = 0;
    // Segments whose last position is after `after`, in order.
    virtual Result<std::vector<SegmentRow>> segments(const Uuid& disk, uint64_t after,
                                                     size_t limit) = 0;
    virtual Result<std::optional<SegmentRow>> segment(const Uuid& disk, uint64_t first) = 0;
    // Exactly `count` digests; chunks never heard of are unknown.
    virtual Result<std::vector<Digest128>> digests(const Uuid& disk, uint64_t first_chunk,
                                                   uint64_t count) = 0;
    // Where it is kept: that may be another filesystem than the store's.
    virtual Result<store::StoreSpace> space() = 0;
};

// SQLite, WAL, synchronous=FULL. Created when absent; a newer schema than ours is refused.
// Crash points: catalog.before_commit, catalog.after_commit.
Result<std::unique_ptr<Catalog>> open_sqlite_catalog(const std::filesystem::path& path);

}  // namespace herald::vault
