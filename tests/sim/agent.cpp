// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/agent.h"

#include "user/wire/messages.h"

namespace herald::sim {

using namespace replicator;

namespace {

constexpr size_t kUnstoredSegmentsMax = 12;  // stands for the bound in bytes
constexpr size_t kReadsMax = 3;

// No error but a gap is expected of a core over memory.
void expect(const Result<void>& result, const char* doing) {
    if (!result) violated("{}: {}", doing, result.error().message);
}

}  // namespace

Agent::Agent(Host host, Machine& machine, std::string name)
    : host_(std::move(host)), machine_(machine), name_(std::move(name)) {
    attach();
}

void Agent::attach() {
    stream_.reset();
    session_.reset();
    reads_.clear();
    point_.reset();
    machine_.frozen = false;
    passing_ = false;
    tags_.clear();
    driver_ = nullptr;
    tracker_.reset();
    if (machine_.ordered) {
        auto attached = tracker::CbtTracker::attach({[this] { return machine_.producer.open(); },
                                                     test::CbtProducer::device(0), host_.disk});
        if (!attached) violated("attach: {}", attached.error().message);
        driver_ = attached->get();
        tracker_ = std::move(*attached);
    } else {
        tracker_ = std::make_unique<MachineTracker>(machine_);
    }
    StreamOptions options;
    options.machine = host_.machine;
    options.disk = host_.disk;
    options.name = name_;
    options.identity = "loop:sim";
    options.disk_bytes = machine_.disk_bytes;
    options.segment_bytes = 3 * kBlockBytes;
    options.segment_age_ms = 200;
    options.read_bytes_max = 2 * kBlockBytes;
    stream_.emplace(
        options, *tracker_, [this] { return host_.random.id(); },
        [this](const char* step) { host_.at_step(step); });
    phase_ = Phase::idle;
}

std::optional<uint64_t> Agent::waits_until() const {
    if (phase_ == Phase::resting) return rest_until_;
    std::optional<uint64_t> until = session_ ? session_->wake_ms() : std::nullopt;
    for (const auto& [ticket, at] : deadlines_) until = std::min(until.value_or(at), at);
    return until;
}

bool Agent::idle() const {
    if (driver_ && driver_->counters()->open_extents > 0) return false;
    return phase_ == Phase::streaming && !stream_->scanning() && !point_ && !point_wanted_ &&
           session_->unstored_segments() == 0 && !session_->ended() &&
           tracker_->continuity().acked_position == stream_->last_position();
}

std::string Agent::describe() {
    return fmt::format(
        "{}: phase {}, scanning {}, point {}, reads {}, unsent segments {}, requests {}, position "
        "{}, acknowledged {}, blocks live {}, to do {}, in flight {}, writes {}",
        name_, int(phase_), stream_->scanning(), point_ ? int(point_->stage) : -1, reads_.size(),
        session_ ? session_->unstored_segments() : 0, deadlines_.size(), stream_->last_position(),
        tracker_->continuity().acked_position, tracker_->map().live_blocks(),
        tracker_->map().todo_blocks(), tracker_->map().in_flight_blocks(), machine_.writes.size());
}

void Agent::step() {
    switch (phase_) {
        case Phase::idle:
            return begin_session();
        case Phase::asking:
            return await_grant();
        case Phase::comparing:
            return compare();
        case Phase::streaming:
            return stream_step();
        case Phase::resting:
            if (host_.now_ms >= rest_until_) phase_ = Phase::idle;
            return;
    }
}

void Agent::begin_session() {
    auto request = stream_->intend(host_.random.id());
    if (!request) violated("intend: {}", request.error().message);
    request_ = *request;
    life_ = host_.random.next();
    deadlines_.clear();
    digests_.reset();
    session_.emplace(SessionOptions{}, request_.session);
    phase_ = Phase::asking;
    host_.trace.add("{}: asks for session {:.8}", name_, to_string(request_.session));
}

void Agent::await_grant() {
    if (session_->ended()) {
        expect(stream_->drop_intention(), "drop the intention");
        return end_session();
    }
    if (!session_->grant()) return;
    auto verdict = stream_->adopt(*session_->grant(), now_ns());
    if (!verdict) violated("adopt: {}", verdict.error().message);
    host_.trace.add("{}: epoch {}, head {}: {} {}", name_, session_->grant()->epoch,
                    session_->grant()->head, to_string(verdict->baseline), verdict->gap);
    hand_over();
    next_block_ = 0;
    digests_asked_at_ = 0;
    if (verdict->baseline != Baseline::continues) compared_ = true;
    phase_ = verdict->baseline == Baseline::compare ? Phase::comparing : Phase::streaming;
}

// As compare_digests(), one block at a time.
void Agent::compare() {
    attend();
    if (session_->ended()) return end_session();
    if (!digests_) {
        if (digests_asked_at_ == 0 || host_.now_ms > digests_asked_at_ + kAnswerMsMax) {
            send_digest_request();
        }
        return;
    }
    if (next_block_ == machine_.blocks()) {
        host_.at_step("replicator.compared");
        expect(stream_->baseline_done(), "end the compare");
        phase_ = Phase::streaming;
        return;
    }
    const uint64_t first = next_block_ * kCellsPerBlock;
    const uint64_t count = std::min<uint64_t>(kCellsPerBlock, machine_.cells.size() - first);
    Digest128 theirs;
    std::copy_n(digests_->begin() + std::ptrdiff_t(next_block_ * sizeof theirs), sizeof theirs,
                theirs.bytes.begin());
    const auto cells = std::span(machine_.cells).subspan(first, count);
    if (theirs.is_unknown() || xxh3_128(expand(cells, first, machine_.disk_bytes)) != theirs) {
        stream_->differs({next_block_, 1});
    }
    ++next_block_;
}

void Agent::send_digest_request() {
    digests_asked_at_ = std::max<uint64_t>(host_.now_ms, 1);
    Request request{life_, kDigestTicket, {}, {}, false};
    request.head.method = "GET";
    request.head.path = fmt::format("/v1/disks/{}/digests", to_string(host_.disk));
    request.head.query = {{"first", "0"}, {"count", std::to_string(machine_.blocks())}};
    host_.send(std::move(request));
}

void Agent::attend() {
    if (session_->grant() && !session_->ended()) {
        expect(stream_->acknowledged(session_->stored()), "acknowledge");
        hand_over();
    }
}

void Agent::hand_over() {
    auto closed = stream_->take_closed();
    if (!closed) violated("take closed segments: {}", closed.error().message);
    for (SegmentPtr& segment : *closed) {
        host_.oracle.made(*segment, machine_.history.shared());
        session_->add(std::move(segment));
    }
}

// After a session ended: as DiskWorker::after_session().
void Agent::end_session() {
    const Failure cause = *session_->ended();
    host_.trace.add("{}: the session ended: {}: {}", name_, to_string(cause.kind), cause.message);
    reads_.clear();
    passing_ = false;
    tags_.clear();
    refuse_point("the session ended");
    if (cause.kind != FailureKind::fenced) {
        expect(stream_->distrust(cause.message), "distrust");
        phase_ = Phase::idle;
        return;
    }
    phase_ = Phase::resting;
    rest_until_ = host_.now_ms + host_.random.below(2000);
}

// The tracker found a gap: as DiskWorker::protect(), from the attaching on.
void Agent::gap_found(const Error& error) {
    if (error.kind != ErrorKind::resync) violated("the tracker: {}", error.message);
    host_.trace.add("{}: gap: {}", name_, error.message);
    attach();
}

void Agent::stream_step() {
    attend();
    if (session_->ended()) return end_session();
    if (point_) return point_step();
    if (driver_ && host_.random.chance(0.5)) {
        emit_changes();
        if (phase_ != Phase::streaming) return;
    }
    if (passing_) {
        if (!stream_->scan_passed()) return;
        passing_ = false;
        expect(stream_->finish_scan(false, now_ns()), "end the scan");
        hand_over();
        return;
    }
    if (!stream_->scanning()) return between_scans();
    if (copy_step()) end_pass(false);
}

bool Agent::held_back() const { return session_->unstored_segments() >= kUnstoredSegmentsMax; }

void Agent::emit_changes() {
    // Room comes back with acknowledgements of what was closed.
    if (held_back()) return;
    auto emitted = stream_->emit_changes(1 + host_.random.below(8 * kCellBytes));
    if (!emitted) {
        gap_found(emitted.error());
        return;
    }
    for (auto tag = tags_.begin(); tag != tags_.end();) {
        const auto place = stream_->tag_place(*tag);
        if (place) {
            host_.oracle.placed(*tag, session_->grant()->epoch, place->refusal);
            host_.trace.add("{}: tag at position {}: {}", name_, place->position,
                            place->refusal.empty() ? "lands" : place->refusal);
            tag = tags_.erase(tag);
        } else {
            ++tag;
        }
    }
    expect(stream_->close_aged(now_ns()), "close");
    hand_over();
}

bool Agent::request_tag() {
    hrl::Tag tag;
    tag.id = host_.random.id();
    tag.name = "tag";
    tag.consistency = hrl::Consistency::crash;
    auto requested = stream_->request_tag(tag);
    if (!requested) {
        host_.trace.add("{}: no tag: {}", name_, requested.error().message);
        return false;
    }
    point_wanted_ = false;
    tags_.insert(tag.id);
    return true;
}

void Agent::between_scans() {
    // The next pass is not due yet.
    if (host_.random.chance(0.7)) return;
    if (driver_ && (point_wanted_ || (!host_.calm && host_.random.chance(0.2))) && request_tag()) {
        return;
    }
    if (!driver_ && tracker_->continuity().synced &&
        (point_wanted_ || (!host_.calm && host_.random.chance(0.4)))) {
        point_wanted_ = false;
        // Small on purpose: a disk of a few blocks is to need several passes, too.
        point_.emplace(Point{PointStage::catching_up,
                             CatchUp({2 * kBlockBytes, machine_.disk_bytes, 4}),
                             !host_.calm && host_.random.chance(0.2),
                             {}});
        host_.trace.add("{}: begins a point", name_);
        return;
    }
    if (!host_.calm && host_.random.chance(0.01)) {
        expect(stream_->mark_all(), "mark all");
    } else if (!host_.calm && host_.random.chance(0.01)) {
        session_->end({FailureKind::diverged, "digest compare ordered by an operator", 0});
        return;
    }
    auto todo = stream_->begin_scan(false, now_ns());
    if (!todo) gap_found(todo.error());
}

Agent::Read Agent::begin_read(const Chunk& chunk) {
    const uint64_t first = chunk.offset / kCellBytes;
    const auto begin = machine_.cells.begin() + std::ptrdiff_t(first);
    return {chunk, Cells(begin, begin + std::ptrdiff_t(cells_of(chunk.length)))};
}

// A device reads sectors at any time between submission and completion, in any order.
void Agent::look_again(Read& read) {
    const uint64_t first = read.chunk.offset / kCellBytes;
    for (uint64_t i = 0; i < read.cells.size(); ++i) {
        if (host_.random.chance(0.4)) read.cells[i] = machine_.cells[first + i];
    }
}

Bytes Agent::bytes_of(const Read& read) const {
    return expand(read.cells, read.chunk.offset / kCellBytes, machine_.disk_bytes);
}

// One step of a pass; true when all that was to do was read and emitted.
bool Agent::copy_step() {
    Random& random = host_.random;
    bool nothing_left = false;
    const bool held_back = this->held_back();
    for (Read& read : reads_) look_again(read);
    if (reads_.size() < kReadsMax && !held_back && (reads_.empty() || random.chance(0.5))) {
        const auto chunks = stream_->take(2 * kBlockBytes);
        for (const Chunk& chunk : chunks) reads_.push_back(begin_read(chunk));
        nothing_left = chunks.empty();
    } else if (!reads_.empty()) {
        const size_t chosen = random.below(reads_.size());
        Read read = std::move(reads_[chosen]);
        reads_.erase(reads_.begin() + std::ptrdiff_t(chosen));
        if (!host_.calm && random.chance(0.02)) {
            for (const Chunk& smaller : stream_->read_failed(read.chunk.id)) {
                reads_.push_back(begin_read(smaller));
            }
        } else if (!host_.calm && random.chance(0.02)) {
            stream_->cancel(read.chunk.id);
        } else {
            look_again(read);
            expect(stream_->read_done(read.chunk.id, bytes_of(read), now_ns()), "emit");
        }
    }
    if (held_back) expect(stream_->flush(), "flush");
    expect(stream_->close_aged(now_ns()), "close");
    hand_over();
    return nothing_left && reads_.empty();
}

void Agent::end_pass(bool quiescent) {
    if (!quiescent) {
        auto settled = stream_->settle();
        if (!settled) {
            gap_found(settled.error());
            return;
        }
        if (driver_) {
            passing_ = true;
            return;
        }
    }
    expect(stream_->finish_scan(quiescent, now_ns()), "end the scan");
    if (quiescent) return;
    expect(stream_->flush(), "flush");
    hand_over();
}

void Agent::refuse_point(const char* why) {
    if (!point_) return;
    host_.trace.add("{}: the point is refused: {}", name_, why);
    machine_.frozen = false;
    point_.reset();
}

// The ladder of DiskWorker::take_point().
void Agent::point_step() {
    Random& random = host_.random;
    if (!host_.calm && random.chance(0.01)) return refuse_point("a deadline");
    switch (point_->stage) {
        case PointStage::catching_up: {
            if (!stream_->scanning()) {
                auto todo = stream_->begin_scan(false, now_ns());
                if (!todo) {
                    gap_found(todo.error());
                    return;
                }
                if (stream_->scanning()) return;
            } else {
                if (!copy_step()) return;
                end_pass(false);
                if (phase_ != Phase::streaming) return;
                if (!stream_->unreadable().empty()) return refuse_point("unreadable blocks");
            }
            auto todo = stream_->drain();
            if (!todo) {
                gap_found(todo.error());
                return;
            }
            const auto advice = point_->catch_up.after_pass(*todo * kBlockBytes);
            if (advice == CatchUp::Advice::refuse) return refuse_point("too much is dirty");
            if (advice == CatchUp::Advice::another_pass) return;
            machine_.frozen = !point_->leaky;
            host_.at_step("replicator.frozen");
            point_->stage = PointStage::quieting;
            return;
        }
        case PointStage::quieting: {
            if (!*tracker_->quiet({})) return;
            if (!stream_->scanning()) {
                auto begun = stream_->begin_scan(true, now_ns());
                if (!begun) {
                    gap_found(begun.error());
                    return;
                }
            }
            auto drained = stream_->drain();
            if (!drained) {
                gap_found(drained.error());
                return;
            }
            point_->stage = PointStage::copying;
            return;
        }
        case PointStage::copying: {
            if (!copy_step()) return;
            auto settled = stream_->settle();
            if (!settled) {
                gap_found(settled.error());
                return;
            }
            if (!stream_->unreadable().empty()) return refuse_point("unreadable blocks");
            if (!*settled) {
                auto drained = stream_->drain();
                if (!drained) gap_found(drained.error());
                return;
            }
            // Nothing happens between the two: this is the moment of the point.
            point_->cells = machine_.cells;
            end_pass(true);
            machine_.frozen = false;
            host_.at_step("replicator.thawed");
            point_->stage = PointStage::tagging;
            return;
        }
        case PointStage::tagging: {
            hrl::Tag tag;
            tag.id = random.id();
            tag.time_ns = now_ns();
            tag.name = "point";
            host_.oracle.tagged(tag.id, std::move(point_->cells));
            auto position = stream_->tag(tag, now_ns());
            if (!position) violated("tag: {}", position.error().message);
            host_.trace.add("{}: point at position {}", name_, *position);
            point_.reset();
            hand_over();
            return;
        }
    }
}

}  // namespace herald::sim
