// SPDX-License-Identifier: Apache-2.0
// DiskStream makes the change stream of one disk out of its tracker's dirty map: session start,
// scans, tags, and what an acknowledgement may clear. The shell reads the disk and talks to the
// server; the simulator stands in for both.
// Promise: dirty_or_delivered across a crash between any two statements: what a later step relies
// on is in the tracker's pinned memory before that step. A dirty map that cannot be trusted is so
// marked (Continuity.session nil, or the tracker's gap) until every block that may differ is in it.
// Promise: a tag is appended only after a scan that ended quiescent, with nothing between.
// With a tracker that sees the order of writes the stream is `ordered`: emit_changes() appends them
// as they come, at any time, and what a scan reads gives way to them (Scanner). Such a scan ends
// the fuzzy span only when it missed nothing and the stream has passed all that its reads may have
// seen; otherwise a reread record before its end says that another one is needed. Callers: one
// thread. Sans I/O: the tracker is memory; time and random ids are passed in. Owns: scanner,
// builder; borrows the tracker. Failure: an error ends the session; start again with intend().
// Nothing is lost by that.
//
// Order of a session: intend() -> the server grants -> adopt() -> for compare: differs()...
// -> baseline_done() -> scans, each begin_scan() .. take(), read_done() .. finish_scan(); of an
// ordered stream .. settle(), emit_changes() until scan_passed(), finish_scan().
#pragma once

#include <functional>
#include <map>
#include <set>

#include "user/replicator/continuity.h"
#include "user/replicator/scanner.h"
#include "user/replicator/segment_builder.h"

namespace herald::replicator {

struct StreamOptions {
    Uuid machine;
    Uuid disk;
    std::string name;      // for people
    std::string identity;  // "wwn:..."
    uint64_t disk_bytes = 0;
    uint64_t segment_bytes = HERALD_SEGMENT_BYTES_DEFAULT;
    uint64_t segment_age_ms = HERALD_SEGMENT_AGE_MS_DEFAULT;
    uint64_t read_bytes_max = HERALD_RECORD_DATA_BYTES_MAX;  // of one read
};

class DiskStream {
  public:
    // at_step: called after each durable step with its name ("replicator.granted"); the program
    // passes crash_point, the simulator its own.
    using AtStep = std::function<void(const char*)>;
    DiskStream(StreamOptions options, tracker::Tracker& tracker, std::function<Uuid()> make_id,
               AtStep at_step);

    // Writes down which session is about to be asked for: `fresh`, or the one that an earlier
    // process asked for without learning the answer (it may have been granted; asking again for
    // it is harmless, asking for another one would look like somebody else's session in between).
    Result<wire::SessionRequest> intend(const Uuid& fresh);
    // The server fenced the intended session itself: it was superseded before we learned of it.
    Result<void> drop_intention();
    // The session's grant: judges continuity, writes the verdict down, begins the stream with an
    // activation. For `initial` and `full` the whole disk is to do when this returns.
    Result<Verdict> adopt(const wire::SessionGrant& grant, uint64_t now_ns);
    // Compare: this block's digest is not the server's. A failure is that of baseline_done().
    void differs(tracker::BlockRun run);
    // Everything that may differ is in the dirty map: it can be trusted from here on.
    Result<void> baseline_done();
    // The dirty map can no longer be trusted (or an operator says so): the next session, also
    // that of a later process, compares. Ends the session: a compare within it could find equal
    // what a segment still under way is about to overwrite with older bytes.
    Result<void> distrust(const std::string& cause);
    // Send the whole disk again; durable at once. Between scans only.
    Result<void> mark_all();

    // Starts a pass: drains the tracker; a scan begins when there is something to do, when none of
    // this session has ended yet, or `always`. Closes what is open either way: segments to take.
    // Returns the blocks to do. An error of kind resync: the tracker found a gap of its own; the
    // next session will compare.
    Result<uint64_t> begin_scan(bool always, uint64_t now_ns);
    bool scanning() const { return scan_open_; }
    bool ordered() const { return ordered_ != nullptr; }
    // Ordered: appends the changes that have completed, up to about bytes_max of them. True when
    // there were any. An error of kind resync: the disk has another size now; attach again.
    Result<bool> emit_changes(uint64_t bytes_max);
    // Ordered, after settle(): finish_scan() may end the scan.
    bool scan_passed() const { return !ordered_ || ordered_->scan_was_passed(); }
    // Within a scan: what was written since is to do as well. Returns the blocks to do.
    Result<uint64_t> drain();
    // Up to bytes_max of reads, each noted as in flight: submit them after this returns.
    std::vector<Chunk> take(uint64_t bytes_max);
    Result<void> read_done(uint64_t chunk, ByteView data, uint64_t now_ns);
    // The smaller reads to try instead; none when the block is now known to be unreadable.
    std::vector<Chunk> read_failed(uint64_t chunk);
    // The chunk was not read after all: to do again.
    void cancel(uint64_t chunk) { tracker_.map().give_back(scanner_.failed(chunk)); }
    // After the last read: marks again what is still being written. True when the scan left
    // nothing behind: no block to do, none written since, none unreadable.
    Result<bool> settle();
    // Ends the scan. quiescent: settle() just said true and nothing can have been written since
    // the last drain() began.
    Result<void> finish_scan(bool quiescent, uint64_t now_ns);
    // Only right after finish_scan(true): returns the tag's position.
    Result<uint64_t> tag(const hrl::Tag& tag, uint64_t now_ns);
    // Ordered: a tag at this moment, with no freeze, whose consistency is what the caller made sure
    // of. It is in the stream when tag_place() knows it.
    Result<void> request_tag(const hrl::Tag& tag);
    struct TagPlace {
        uint64_t position = 0;
        uint64_t time_ns = 0;
        std::string refusal;  // not empty: no recovery point
    };
    // Forgets it, if it is there.
    std::optional<TagPlace> tag_place(const Uuid& tag);
    // Closes the open segment: when due, or at once.
    Result<void> close_aged(uint64_t now_ns) { return builder_.close_aged(now_ns); }
    Result<void> flush() { return builder_.flush(); }
    // Closed segments, to be sent: that they may have been is remembered before this returns.
    // Never more than HERALD_SENT_SEGMENTS_MAX wait for an acknowledgement: ask again after one.
    Result<std::vector<SegmentPtr>> take_closed();

    // The server's acknowledgement, of this session: saved, then the bits cleared.
    Result<void> acknowledged(uint64_t stored, uint64_t received = 0);

    tracker::Tracker& tracker() { return tracker_; }
    const StreamOptions& options() const { return options_; }
    uint64_t last_position() const { return builder_.last_position(); }
    uint64_t untaken_bytes() const { return builder_.untaken_bytes(); }
    // Memory for what was emitted and not acknowledged, segments apart.
    uint64_t bookkeeping_bytes() const {
        return tracker_.map().unacknowledged_blocks() * HERALD_EMITTED_BLOCK_BYTES;
    }
    std::optional<uint64_t> close_at_ns() const { return builder_.close_at_ns(); }
    size_t reads_in_flight() const { return scanner_.in_flight(); }
    const std::set<uint64_t>& unreadable() const { return unreadable_; }
    // The scan that runs, or the next one, is the first of a disk never synchronised.
    hrl::ScanCause next_cause() const { return next_cause_; }
    bool synced() const { return tracker_.continuity().synced; }

  private:
    Result<void> append(hrl::Record record, uint64_t time_ns);
    Result<void> append_change(const tracker::OrderedChange& change);
    Result<void> append_range(hrl::RecordKind kind, uint64_t offset, uint64_t length, ByteView data,
                              uint64_t time_ns);
    Result<void> append_mode(hrl::StreamMode mode, const tracker::OrderedChange& change);
    Result<void> append_tag(const tracker::OrderedChange& change);
    Result<void> append_reread(uint64_t offset, uint64_t length, uint64_t time_ns);
    // Of what is no change itself: that of the newest change before it.
    uint64_t stamp(uint64_t now_ns) const;
    void note_all_read();
    Result<void> save(const tracker::Continuity& continuity, const char* step);

    StreamOptions options_;
    tracker::Tracker& tracker_;
    tracker::OrderedChanges* ordered_;  // nothing: the stream is unordered
    AtStep at_step_;
    Scanner scanner_;
    SegmentBuilder builder_;
    Uuid session_;                // granted; nil before
    std::string distrust_cause_;  // of the next gap, when this process knows it better
    uint64_t began_ns_ = 0;
    bool scan_open_ = false;
    bool may_tag_ = false;
    uint64_t scan_ = 0;
    uint64_t cursor_ = 0;
    hrl::ScanCause next_cause_ = hrl::ScanCause::catch_up;
    uint64_t synced_at_ = 0;  // end of the initial scan; 0: not known
    std::set<uint64_t> unreadable_;
    Result<void> marked_;  // by differs()
    // Ordered: the stream is fuzzy until a scan ends that began after what made it so, and that
    // read everything there was to read.
    bool needs_scan_ = true;
    bool scan_covers_ = false;
    bool scan_proves_ = false;
    std::map<Uuid, hrl::Tag> tags_requested_;
    std::map<Uuid, TagPlace> tags_placed_;
};

}  // namespace herald::replicator
