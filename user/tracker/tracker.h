// SPDX-License-Identifier: Apache-2.0
// Tracker: what notices the writes of one disk, whatever does the noticing.
// Promise: every write that completed before drain() began is in map() after it; when that cannot
// be promised for the time since the last session, gap() says why.
// Callers: one thread for each disk.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "user/base/bytes.h"
#include "user/base/result.h"
#include "user/base/uuid.h"
#include "user/tracker/dirty_map.h"

namespace herald::tracker {

struct Extent {
    uint64_t offset = 0;  // bytes
    uint64_t length = 0;
};

struct SentSegment {
    uint64_t last_position = 0;
    Uuid segment;
    bool operator==(const SentSegment&) const = default;
};

// What a replicator must remember exactly as long as the dirty map is remembered: kept in the
// same pinned memory, so that both are lost together or not at all.
struct Continuity {
    Uuid disk;
    Uuid session;                 // the session that last wrote here; nil before the first
    Uuid next_session;            // a session that was asked for and may have been granted
    uint64_t acked_position = 0;  // newest position whose bits may have been cleared
    // The segments that the server may end with: the one it ended with when the session began or
    // at the newest acknowledgement, and those that may have been sent since, in order; at most
    // HERALD_SENT_SEGMENTS_MAX. A server that ends with another got it from a later state of this
    // machine (a snapshot was reverted) or from a clone.
    std::vector<SentSegment> sent;
    bool synced = false;  // an initial sync was completed at some time
};

struct TrackerCounters {
    uint64_t submissions = 0;
    uint64_t completions = 0;
    uint64_t missed_events = 0;  // programs that the kernel says it skipped
    uint64_t open_extents = 0;   // writes submitted and not known to have completed
    uint64_t table_full = 0;     // writes that found no place among the open ones
    uint64_t reissued_open = 0;  // completions found missing when the request was used again
    uint64_t beyond_end = 0;     // writes beyond the end that the map was made for
    uint64_t foreign = 0;        // events of another disk under the same device number
    uint64_t long_discards = 0;  // of too many ranges: the whole disk was marked
};

// One change, as a tracker that sees their order hands it out.
struct OrderedChange {
    enum class Kind : uint8_t {
        write,
        zeroes,
        discard,
        secure_erase,
        reread,  // the range's content is not known; it is to do in the map
        tag,
        resize,   // length: bytes now
        ordered,  // the mode from here on, and why
        extents,
        map,
        nothing,  // only its place counts
    };
    Kind kind = Kind::nothing;
    uint64_t time_ns = 0;  // increases from change to change; 0: the tracker has none for it
    uint64_t offset = 0;   // bytes
    uint64_t length = 0;
    ByteView data;  // of a write: borrowed until the next call of release() or restart()
    Uuid id;        // of a tag
    // Of a tag: names no consistent moment.
    bool downgraded = false;
    std::string cause;
};

// What a tracker that sees the order of writes does besides. Positions are those of the stream.
// A scan of its dirty map covers what it should only when nothing was written meanwhile that is not
// among the changes, and when the stream has passed every change that its reads may have seen.
class OrderedChanges {
  public:
    virtual ~OrderedChanges() = default;

    // The next change, if it has completed; what cannot be handed out is marked to do in the map.
    // Corrupt: the tracker's memory holds what it cannot hold.
    virtual Result<std::optional<OrderedChange>> next() = 0;
    // The change handed out last is in the stream, up to this position.
    virtual void emitted(uint64_t position) = 0;
    // Gives room back to the tracker; after each batch of changes.
    virtual Result<void> release() = 0;
    // No block is to do or being read: all that was to do is in the stream up to this position.
    virtual void all_read(uint64_t position) = 0;
    virtual Result<void> acknowledged(uint64_t received, uint64_t stored) = 0;

    // Something has to be scanned that cannot be read yet, so that a scan now would prove nothing.
    virtual Result<bool> scan_must_wait() = 0;
    // Of Tracker::end_pass(), which was called after the scan's last read: it missed nothing.
    virtual bool scan_was_exact() const = 0;
    // Every change that the scan's reads may have seen was handed out.
    virtual bool scan_was_passed() const = 0;
    // Every change with a smaller time was handed out; 0: not known.
    virtual uint64_t complete_ns() const = 0;

    // As it is now; a change of kind resize may be still to come.
    virtual uint64_t disk_bytes() const = 0;

    // A tag among the changes, at this moment. Not landed: why.
    struct TagAnswer {
        bool landed = false;
        std::string cause;
        uint64_t time_ns = 0;
    };
    virtual Result<TagAnswer> tag(const Uuid& id) = 0;
};

class Tracker {
  public:
    virtual ~Tracker() = default;

    // Nothing: it does not see the order of writes.
    virtual OrderedChanges* ordered() { return nullptr; }
    // A new session: whatever was in flight will not be acknowledged to it, and is to do again.
    virtual Result<void> restart() {
        map().recover();
        return {};
    }
    // Sets blocks to do; outlives whatever the map outlives.
    virtual Result<void> mark(BlockRun run) {
        map().mark(run);
        return {};
    }

    virtual std::string kind() const = 0;  // "ebpf", "dm_cbt"
    // Why the dirty map does not cover everything since the last session; nothing when it does.
    // Set at attach, cleared by clear_gap() once a digest compare or full scan was marked to do.
    virtual std::optional<std::string> gap() const = 0;
    virtual Result<void> clear_gap() = 0;

    virtual DirtyMap& map() = 0;
    // Starts a pass: live marks become blocks to do.
    virtual Result<void> drain() = 0;
    // Ends a pass, after its last read completed: every write still open is marked again.
    virtual Result<void> end_pass() = 0;
    // True when no write to the extents (none: the whole disk) is in flight. Used while frozen.
    virtual Result<bool> quiet(std::span<const Extent> extents) = 0;

    virtual Continuity continuity() const = 0;
    virtual Result<void> set_continuity(const Continuity& continuity) = 0;
    virtual Result<TrackerCounters> counters() const = 0;
};

}  // namespace herald::tracker
