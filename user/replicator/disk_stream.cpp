// SPDX-License-Identifier: Apache-2.0
#include "user/replicator/disk_stream.h"

#include <algorithm>

namespace herald::replicator {

using tracker::BlockRun;
using tracker::Continuity;

DiskStream::DiskStream(StreamOptions options, tracker::Tracker& tracker,
                       std::function<Uuid()> make_id, AtStep at_step)
    : options_(std::move(options)),
      tracker_(tracker),
      ordered_(tracker.ordered()),
      at_step_(std::move(at_step)),
      scanner_(options_.disk_bytes),
      builder_({options_.machine, options_.disk, options_.disk_bytes, options_.segment_bytes,
                options_.segment_age_ms},
               std::move(make_id)) {}

Result<void> DiskStream::save(const Continuity& continuity, const char* step) {
    auto saved = tracker_.set_continuity(continuity);
    if (!saved) return pass(saved, "remember the session");
    at_step_(step);
    return {};
}

Result<wire::SessionRequest> DiskStream::intend(const Uuid& fresh) {
    Continuity continuity = tracker_.continuity();
    if (continuity.next_session.is_nil()) {
        continuity.disk = options_.disk;
        continuity.next_session = fresh;
        auto saved = save(continuity, "replicator.intended");
        if (!saved) return pass(saved);
    }
    session_ = {};
    wire::SessionRequest request;
    request.session = continuity.next_session;
    request.name = options_.name;
    request.identity = options_.identity;
    request.disk_bytes = options_.disk_bytes;
    request.block_bytes = HERALD_BLOCK_BYTES;
    return request;
}

Result<void> DiskStream::drop_intention() {
    Continuity continuity = tracker_.continuity();
    continuity.next_session = {};
    return save(continuity, "replicator.intention_dropped");
}

Result<Verdict> DiskStream::adopt(const wire::SessionGrant& grant, uint64_t now_ns) {
    at_step_("replicator.granted");
    Continuity continuity = tracker_.continuity();
    HERALD_ASSERT(!continuity.next_session.is_nil());
    session_ = continuity.next_session;
    Verdict verdict = judge(continuity, tracker_.gap(), grant);
    if (!verdict.gap.empty() && !distrust_cause_.empty()) verdict.gap = distrust_cause_;
    began_ns_ = now_ns;
    scan_open_ = false;
    may_tag_ = false;
    scan_ = 0;
    synced_at_ = 0;
    unreadable_.clear();
    scanner_.reset();
    needs_scan_ = true;
    marked_ = {};

    if (ordered_ && verdict.baseline == Baseline::continues) {
        // What the server holds of this process's last session is not to be sent again.
        auto told = ordered_->acknowledged(grant.head, grant.head);
        if (!told) return pass(told);
    }
    // Whatever was in flight belongs to an earlier session: nobody will acknowledge it to us.
    auto restarted = tracker_.restart();
    if (!restarted) return pass(restarted);
    at_step_("replicator.recovered");

    continuity.next_session = {};
    // What was sent beyond the head is fenced by this grant: those positions come again.
    continuity.sent = {{grant.head, grant.head_segment}};
    if (verdict.baseline == Baseline::continues) {
        continuity.session = session_;
        next_cause_ = continuity.synced ? hrl::ScanCause::catch_up : hrl::ScanCause::initial;
        auto saved = save(continuity, "replicator.session_saved");
        if (!saved) return pass(saved);
    } else {
        // Until baseline_done() no session counts as ours, so that a crash on the way there makes
        // the next process begin it again.
        continuity.session = {};
        continuity.acked_position = grant.head;
        continuity.synced = continuity.synced && grant.complete;
        auto saved = save(continuity, "replicator.distrusted");
        if (!saved) return pass(saved);
        next_cause_ = verdict.baseline == Baseline::initial   ? hrl::ScanCause::initial
                      : verdict.baseline == Baseline::compare ? hrl::ScanCause::digest
                                                              : hrl::ScanCause::full;
        if (verdict.baseline != Baseline::compare) {
            auto marked = tracker_.mark({0, tracker_.map().blocks()});
            if (!marked) return pass(marked);
            at_step_("replicator.marked_all");
            auto done = baseline_done();
            if (!done) return pass(done);
        }
    }

    builder_.begin(grant.epoch, grant.head, grant.head_segment);
    hrl::Activation activation;
    activation.session = session_;
    activation.mode = ordered_ ? hrl::StreamMode::ordered : hrl::StreamMode::unordered;
    activation.tracker = tracker_.kind();
    activation.gap = verdict.gap;
    const Bytes payload = hrl::encode_activation(activation);
    hrl::Record record;
    record.kind = hrl::RecordKind::activation;
    record.data = payload;
    auto appended = builder_.append(record, now_ns);
    if (!appended) return pass(appended);
    auto flushed = builder_.flush();
    if (!flushed) return pass(flushed);
    return verdict;
}

Result<void> DiskStream::baseline_done() {
    Continuity continuity = tracker_.continuity();
    HERALD_ASSERT(!session_.is_nil());
    if (!marked_) return marked_;
    // The session first: were the gap cleared first, a crash between the two would still find
    // session nil. Either order is safe; this one repeats the compare in fewer cases.
    continuity.session = session_;
    auto saved = save(continuity, "replicator.baseline_saved");
    if (!saved) return saved;
    distrust_cause_.clear();
    auto cleared = tracker_.clear_gap();
    if (!cleared) return pass(cleared, "clear the tracker's gap");
    at_step_("replicator.gap_cleared");
    return {};
}

void DiskStream::differs(BlockRun run) {
    if (marked_) marked_ = tracker_.mark(run);
}

Result<void> DiskStream::distrust(const std::string& cause) {
    distrust_cause_ = cause;
    Continuity continuity = tracker_.continuity();
    continuity.session = {};
    session_ = {};
    return save(continuity, "replicator.distrusted");
}

Result<void> DiskStream::mark_all() {
    auto marked = tracker_.mark({0, tracker_.map().blocks()});
    if (!marked) return marked;
    next_cause_ = hrl::ScanCause::full;
    at_step_("replicator.marked_all");
    return {};
}

Result<uint64_t> DiskStream::begin_scan(bool always, uint64_t now_ns) {
    HERALD_ASSERT(!scan_open_ && scanner_.in_flight() == 0);
    may_tag_ = false;
    // A point refused after its scan left its records in an open segment, with nothing behind
    // them that would close it. The changes of an ordered stream go on; their age closes it.
    auto closed = ordered_ ? Result<void>() : builder_.flush();
    if (!closed) return pass(closed);
    auto todo = drain();
    if (!todo) return todo;
    scan_proves_ = true;
    if (ordered_) {
        auto must_wait = ordered_->scan_must_wait();
        if (!must_wait) return pass(must_wait);
        if (*must_wait && *todo == 0) return todo;
        scan_proves_ = !*must_wait;
    }
    // A session's first scan takes place even when nothing is to do: until it ends the server
    // takes the stream for fuzzy, and a disk compared and found equal would not count as synced.
    if (*todo == 0 && !always && synced_at_ != 0 && !(ordered_ && needs_scan_)) return todo;
    unreadable_.clear();
    hrl::ScanBegin begin;
    begin.scan = ++scan_;
    begin.cause = scan_proves_ ? next_cause_ : hrl::ScanCause::reread;
    scan_covers_ = true;
    const Bytes payload = hrl::encode_scan_begin(begin);
    hrl::Record record;
    record.kind = hrl::RecordKind::scan_begin;
    record.data = payload;
    auto appended = builder_.append(record, stamp(now_ns));
    if (!appended) return pass(appended);
    scan_open_ = true;
    return todo;
}

Result<uint64_t> DiskStream::drain() {
    auto drained = tracker_.drain();
    if (!drained) return pass(drained);
    at_step_("replicator.drained");
    if (const auto gap = tracker_.gap()) return fail(ErrorKind::resync, "{}", *gap);
    if (ordered_ && ordered_->disk_bytes() != options_.disk_bytes) {
        return fail(ErrorKind::resync, "the disk has {} bytes now, it had {}",
                    ordered_->disk_bytes(), options_.disk_bytes);
    }
    note_all_read();
    return tracker_.map().todo_blocks();
}

std::vector<Chunk> DiskStream::take(uint64_t bytes_max) {
    HERALD_ASSERT(scan_open_);
    const uint64_t blocks = std::max<uint64_t>(1, bytes_max / HERALD_BLOCK_BYTES);
    const uint64_t run_blocks =
        std::clamp<uint64_t>(options_.read_bytes_max / HERALD_BLOCK_BYTES, 1, blocks);
    std::vector<Chunk> chunks;
    for (const BlockRun& run : tracker_.map().take(blocks, run_blocks, cursor_)) {
        chunks.push_back(scanner_.begin(run));
    }
    if (!chunks.empty()) at_step_("replicator.taken");
    return chunks;
}

Result<void> DiskStream::read_done(uint64_t chunk, ByteView data, uint64_t now_ns) {
    at_step_("replicator.read");
    auto run = scanner_.completed(chunk, data, [&](const hrl::Record& record) -> Result<void> {
        return append(record, stamp(now_ns));
    });
    if (!run) return pass(run);
    tracker_.map().emitted(*run, builder_.last_position());
    note_all_read();
    at_step_("replicator.emitted");
    return {};
}

std::vector<Chunk> DiskStream::read_failed(uint64_t chunk) {
    const BlockRun run = scanner_.failed(chunk);
    std::vector<Chunk> smaller;
    if (run.count == 1) {
        // Stays in flight until the scan's end, so that take() does not offer it for ever.
        unreadable_.insert(run.first);
        return smaller;
    }
    for (uint64_t i = 0; i < run.count; ++i) smaller.push_back(scanner_.begin({run.first + i, 1}));
    return smaller;
}

Result<bool> DiskStream::settle() {
    HERALD_ASSERT(scan_open_ && scanner_.in_flight() == 0);
    auto ended = tracker_.end_pass();
    if (!ended) return pass(ended);
    // Events lost since the drain: a write may have passed unseen, and no point may say otherwise.
    if (const auto gap = tracker_.gap()) return fail(ErrorKind::resync, "{}", *gap);
    return unreadable_.empty() && tracker_.map().todo_blocks() == 0 &&
           tracker_.map().live_blocks() == 0;
}

Result<void> DiskStream::finish_scan(bool quiescent, uint64_t now_ns) {
    HERALD_ASSERT(scan_open_ && scanner_.in_flight() == 0);
    if (ordered_ && !(scan_proves_ && unreadable_.empty() && ordered_->scan_was_exact() &&
                      ordered_->scan_was_passed())) {
        auto fuzzy = append_reread(0, std::min<uint64_t>(options_.disk_bytes, HERALD_BLOCK_BYTES),
                                   stamp(now_ns));
        if (!fuzzy) return fuzzy;
    }
    for (uint64_t block : unreadable_) tracker_.map().give_back({block, 1});
    hrl::ScanEnd end;
    end.scan = scan_;
    end.quiescent = quiescent;
    end.unreadable_blocks = unreadable_.size();
    const Bytes payload = hrl::encode_scan_end(end);
    hrl::Record record;
    record.kind = hrl::RecordKind::scan_end;
    record.data = payload;
    auto appended = builder_.append(record, stamp(now_ns));
    if (!appended) return pass(appended);
    scan_open_ = false;
    may_tag_ = quiescent && !ordered_;
    if (scan_covers_) needs_scan_ = false;
    if (unreadable_.empty() && scan_proves_) {
        // All that was to do at the scan's begin was sent: what follows is catching up.
        next_cause_ = hrl::ScanCause::catch_up;
        if (synced_at_ == 0) synced_at_ = *appended;
    }
    return {};
}

Result<uint64_t> DiskStream::tag(const hrl::Tag& tag, uint64_t now_ns) {
    HERALD_ASSERT(may_tag_ && !scan_open_);
    const Bytes payload = hrl::encode_tag(tag);
    hrl::Record record;
    record.kind = hrl::RecordKind::tag;
    record.data = payload;
    auto appended = builder_.append(record, now_ns);
    if (!appended) return pass(appended);
    at_step_("replicator.tagged");
    auto flushed = builder_.flush();
    if (!flushed) return pass(flushed);
    return *appended;
}

Result<std::vector<SegmentPtr>> DiskStream::take_closed() {
    if (builder_.closed_segments() == 0) return std::vector<SegmentPtr>();
    at_step_("replicator.segment_closed");
    Continuity continuity = tracker_.continuity();
    HERALD_ASSERT(continuity.sent.size() <= HERALD_SENT_SEGMENTS_MAX);
    auto closed = builder_.take_closed(HERALD_SENT_SEGMENTS_MAX - continuity.sent.size());
    if (closed.empty()) return closed;
    for (const SegmentPtr& segment : closed) {
        continuity.sent.push_back({segment->last_position, segment->header.segment});
    }
    auto saved = save(continuity, "replicator.sent_saved");
    if (!saved) return pass(saved);
    return closed;
}

Result<void> DiskStream::acknowledged(uint64_t stored, uint64_t received) {
    Continuity continuity = tracker_.continuity();
    const bool synced = continuity.synced || (synced_at_ != 0 && stored >= synced_at_);
    const auto tell = [&] {
        return ordered_ ? ordered_->acknowledged(std::max(received, stored), stored)
                        : Result<void>();
    };
    if (stored <= continuity.acked_position && synced == continuity.synced) return tell();
    at_step_("replicator.acked");
    // Saved before any bit is cleared: were the bits cleared first, a crash between the two and a
    // server restored to before this position would look like an unbroken history.
    continuity.acked_position = std::max(continuity.acked_position, stored);
    std::erase_if(continuity.sent, [&](const tracker::SentSegment& segment) {
        return segment.last_position < continuity.acked_position;
    });
    continuity.synced = synced;
    auto saved = save(continuity, "replicator.acked_saved");
    if (!saved) return saved;
    tracker_.map().acknowledge(stored);
    auto told = tell();
    at_step_("replicator.bits_cleared");
    return told;
}

}  // namespace herald::replicator
