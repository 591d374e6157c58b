// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/agent.h"

#include <algorithm>

namespace herald::sim {

using replicator::Baseline;
using replicator::Failure;
using replicator::FailureKind;
using replicator::Session;

namespace {

constexpr unsigned kGenerationShift = 32;
constexpr uint64_t kDigestsTicket = 0xffffffff;
constexpr uint64_t kUnsentMax = 2u << 20;

replicator::StreamOptions options_of(const Uuid& machine, const Uuid& disk, uint64_t blocks) {
    replicator::StreamOptions options;
    options.machine = machine;
    options.disk = disk;
    options.disk_bytes = blocks * HERALD_BLOCK_BYTES;
    options.segment_bytes = 3 * HERALD_BLOCK_BYTES;
    options.segment_age_ms = 40;
    options.read_bytes_max = 4 * HERALD_BLOCK_BYTES;
    return options;
}

replicator::SessionOptions session_options() {
    replicator::SessionOptions options;
    options.backoff_ms_min = 20;
    options.backoff_ms_max = 300;
    options.refused_ms = 300;
    return options;
}

}  // namespace

std::optional<Break> parse_break(std::string_view name) {
    if (name.empty()) return Break::nothing;
    if (name == "early_clear") return Break::early_clear;
    if (name == "trust_always") return Break::trust_always;
    if (name == "no_open_marks") return Break::no_open_marks;
    if (name == "tag_anywhere") return Break::tag_anywhere;
    if (name == "forget_sent") return Break::forget_sent;
    if (name == "old_epoch") return Break::old_epoch;
    if (name == "skip_compare") return Break::skip_compare;
    return std::nullopt;
}

Agent::Agent(Machine& machine, test::Pinned& pinned, Random& random, const Uuid& machine_id,
             const Uuid& disk_id, Break broken)
    : machine_(machine),
      pinned_(pinned),
      random_(random),
      broken_(broken),
      tracker_(pinned),
      stream_(
          options_of(machine_id, disk_id, pinned.blocks), tracker_,
          [this] { return random_.uuid(); }, [this](const char* s) { machine_.at_step(s); }) {}

void Agent::must(const Result<void>& result, const char* what) {
    if (!result) bug(what, result.error().message.c_str(), __LINE__);
}

bool Agent::idle() const {
    return state_ == State::running && !stream_.scanning() && session_->unstored_segments() == 0 &&
           stream_.open_bytes() == 0;
}

std::string Agent::describe() const {
    return fmt::format("agent state {} scanning {} point {} unstored {} stored {}{}{}", int(state_),
                       stream_.scanning(), point_, session_ ? session_->unstored_segments() : 0,
                       session_ ? session_->stored() : 0,
                       session_ && session_->ended() ? " ended: " : "",
                       session_ && session_->ended() ? session_->ended()->message : "");
}

void Agent::begin_session() {
    auto request = stream_.intend(random_.uuid());
    if (!request) bug("intend", request.error().message.c_str(), __LINE__);
    ++generation_;
    session_.emplace(session_options(), request->session);
    digests_.reset();
    digests_asked_ = false;
    reads_.clear();
    point_ = false;
    state_ = State::asking;
}

void Agent::adopt() {
    wire::SessionGrant grant = *session_->grant();
    if (broken_ == Break::trust_always) {
        tracker::Continuity continuity = pinned_.continuity;
        if (!continuity.session.is_nil() && grant.head > 0) {
            grant.previous_session = continuity.session;
            continuity.acked_position = std::min(continuity.acked_position, grant.head);
            continuity.sent_position = grant.head;
            pinned_.continuity = continuity;
        }
    }
    if (broken_ == Break::forget_sent) pinned_.continuity.sent_position = UINT64_MAX;
    auto verdict = stream_.adopt(grant, machine_.now_ms() * 1'000'000);
    if (!verdict) bug("adopt", verdict.error().message.c_str(), __LINE__);
    hand_over();
    compare_next_ = 0;
    state_ = verdict->baseline == Baseline::compare ? State::comparing : State::running;
    machine_.adopted(*verdict, grant.epoch);
}

void Agent::compare_one() {
    if (!digests_) {
        if (!digests_asked_) {
            digests_asked_ = true;
            machine_.request_digests(generation_ << kGenerationShift | kDigestsTicket);
        }
        return;
    }
    if (broken_ == Break::skip_compare && compare_next_ > pinned_.blocks / 2) {
        compare_next_ = pinned_.blocks;
    }
    if (compare_next_ == pinned_.blocks) {
        must(stream_.baseline_done(), "baseline_done");
        state_ = State::running;
        return;
    }
    const uint64_t block = compare_next_++;
    Digest128 theirs;
    std::copy_n(digests_->begin() + std::ptrdiff_t(block * 16), 16, theirs.bytes.begin());
    if (theirs.is_unknown() || xxh3_128(machine_.read(block)) != theirs) {
        stream_.differs({block, 1});
    }
}

void Agent::hand_over() {
    auto closed = stream_.take_closed();
    if (!closed) bug("take_closed", closed.error().message.c_str(), __LINE__);
    for (auto& segment : *closed) {
        if (broken_ == Break::early_clear) tracker_.map().acknowledge(segment->last_position);
        session_->add(std::move(segment));
    }
}

void Agent::read_one() {
    if (reads_.empty()) return;
    const size_t i = random_.below(reads_.size());
    Read& read = reads_[i];
    if (!read.data) {
        // What the device returns is the content at one moment between submission and completion.
        Bytes data;
        for (uint64_t b = 0; b < read.chunk.run.count; ++b) {
            const Bytes block = machine_.read(read.chunk.run.first + b);
            data.insert(data.end(), block.begin(), block.end());
        }
        read.data = std::move(data);
        return;
    }
    const Read done = std::move(read);
    reads_.erase(reads_.begin() + std::ptrdiff_t(i));
    if (random_.chance(0.01)) {
        for (const auto& smaller : stream_.read_failed(done.chunk.id)) {
            reads_.push_back({smaller, std::nullopt});
        }
        return;
    }
    must(stream_.read_done(done.chunk.id, *done.data, machine_.now_ms() * 1'000'000), "read_done");
}

void Agent::end_scan() {
    const uint64_t now_ns = machine_.now_ms() * 1'000'000;
    bool settled = false;
    if (broken_ == Break::no_open_marks) {
        settled = tracker_.map().todo_blocks() == 0 && tracker_.map().live_blocks() == 0;
    } else {
        auto result = stream_.settle();
        if (!result) bug("settle", result.error().message.c_str(), __LINE__);
        settled = *result;
    }
    if (!point_) {
        must(stream_.finish_scan(false, now_ns), "finish_scan");
        return;
    }
    if (broken_ == Break::tag_anywhere) settled = true;
    if (!settled) {
        if (++point_rounds_ < 5 && stream_.unreadable().empty()) {
            if (!stream_.drain()) bug("drain", "", __LINE__);
            return;
        }
        // Refused: the scan goes on as an ordinary one.
        point_ = false;
        (void)machine_.thaw();
        must(stream_.finish_scan(false, now_ns), "finish_scan");
        return;
    }
    point_ = false;
    must(stream_.finish_scan(true, now_ns), "finish_scan");
    const Uuid id = random_.uuid();
    machine_.tagged(id);  // notes the image; it counts only if the tag is sent
    if (!machine_.thaw()) return;
    hrl::Tag tag;
    tag.id = id;
    tag.time_ns = now_ns;
    tag.name = "sim";
    auto position = stream_.tag(tag, now_ns);
    if (!position) bug("tag", position.error().message.c_str(), __LINE__);
    hand_over();
}

void Agent::run_one() {
    const uint64_t now_ns = machine_.now_ms() * 1'000'000;
    if (!stream_.scanning()) {
        if (point_wanted_ && stream_.synced() && random_.chance(0.5)) {
            point_wanted_ = false;
            point_ = true;
            point_rounds_ = 0;
            machine_.freeze();
            if (broken_ != Break::no_open_marks && !*tracker_.quiet({})) {
                // A write that cannot be stopped: this point is refused.
                point_ = false;
                (void)machine_.thaw();
                return;
            }
            if (!stream_.begin_scan(true, now_ns)) bug("begin_scan", "", __LINE__);
        } else if (random_.chance(0.3)) {
            if (!stream_.begin_scan(random_.chance(0.05), now_ns)) bug("begin_scan", "", __LINE__);
        }
        return;
    }
    if (reads_.size() < 6 && random_.chance(0.5) &&
        session_->unstored_bytes() + stream_.open_bytes() < kUnsentMax) {
        const auto chunks = stream_.take((1 + random_.below(6)) * HERALD_BLOCK_BYTES);
        for (const auto& chunk : chunks) reads_.push_back({chunk, std::nullopt});
        if (chunks.empty() && reads_.empty()) end_scan();
        return;
    }
    read_one();
}

void Agent::pump() {
    for (unsigned i = 0; i < 4; ++i) {
        auto action = session_->next(machine_.now_ms());
        if (!action) break;
        if (const auto* ask = std::get_if<Session::Ask>(&*action)) {
            auto request = stream_.intend(random_.uuid());
            machine_.request_session(generation_ << kGenerationShift | ask->ticket, *request);
        } else {
            const auto& send = std::get<Session::Send>(*action);
            machine_.request_put(generation_ << kGenerationShift | send.ticket, send);
        }
    }
}

void Agent::step() {
    if (state_ == State::no_session) {
        begin_session();
        return;
    }
    if (session_->ended()) {
        if (machine_.frozen()) (void)machine_.thaw();
        const bool fenced = session_->ended()->kind == FailureKind::fenced;
        if (state_ == State::asking) {
            must(stream_.drop_intention(), "drop_intention");
        } else if (!fenced) {
            must(stream_.distrust(session_->ended()->message), "distrust");
        }
        state_ = State::no_session;
        return;
    }
    if (state_ == State::asking) {
        if (session_->grant()) {
            adopt();
        } else {
            pump();
        }
        return;
    }
    switch (random_.below(6)) {
        case 0:
            if (broken_ != Break::early_clear) {
                must(stream_.acknowledged(session_->stored()), "acknowledged");
            }
            break;
        case 1:
            if (random_.chance(0.3)) {
                must(stream_.flush(), "flush");
            } else {
                must(stream_.close_aged(machine_.now_ms() * 1'000'000), "close_aged");
            }
            hand_over();
            break;
        case 2:
            pump();
            break;
        default:
            if (state_ == State::comparing) {
                compare_one();
            } else {
                run_one();
            }
            break;
    }
}

void Agent::answer(uint64_t ticket, const Answer& answer) {
    if (ticket >> kGenerationShift != generation_ || !session_) return;
    ticket &= 0xffffffff;
    if (ticket == kDigestsTicket) {
        if (const auto* bytes = std::get_if<Bytes>(&answer)) {
            digests_ = *bytes;
        } else {
            digests_asked_ = false;
        }
    } else if (const auto* grant = std::get_if<wire::SessionGrant>(&answer)) {
        session_->granted(ticket, *grant);
    } else if (const auto* ack = std::get_if<wire::SegmentAck>(&answer)) {
        session_->acked(ticket, *ack);
    } else {
        session_->failed(ticket, std::get<Failure>(answer), machine_.now_ms(), random_.real());
    }
}

void Agent::timed_out(uint64_t ticket) {
    answer(ticket, Failure{FailureKind::unreachable, "no answer", 0});
}

}  // namespace herald::sim
