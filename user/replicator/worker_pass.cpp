// SPDX-License-Identifier: Apache-2.0
// One pass of a disk's thread: what is dirty is read, several reads in flight, and handed to the
// uploader as segments, within the memory and the rate that the disk may use.
#include <spdlog/spdlog.h>

#include <algorithm>

#include "user/replicator/disk_worker.h"
#include "user/replicator/worker_time.h"

namespace herald::replicator {

namespace {

constexpr std::chrono::seconds kUnreadableRetry{30};
constexpr size_t kReadErrorsLogged = 16;
constexpr unsigned kBatchesMax = 16;
constexpr uint64_t kBatchBytes = 1u << 20;

}  // namespace

Result<void> DiskWorker::one_pass() {
    const uint64_t started_ns = wall_ns();
    auto emitted = emit_changes();
    if (!emitted) return emitted;
    const tracker::DirtyMap& map = tracker_->map();
    if (!stream_->scanning()) {
        // Blocks that cannot be read are tried again, but not ten times a second.
        const bool only_unreadable = facts_.unreadable_blocks > 0 &&
                                     map.todo_blocks() <= facts_.unreadable_blocks &&
                                     map.live_blocks() == 0;
        if (only_unreadable && Clock::now() < unreadable_retry_at_) return {};
        auto todo = stream_->begin_scan(false, started_ns);
        if (!todo) return pass(todo);
        if (!stream_->scanning()) {
            backlog_.pass_ended(started_ns, stream_->last_position());
            return {};
        }
        if (stream_->next_cause() != hrl::ScanCause::catch_up) {
            facts_.phase = WorkerPhase::scanning;
            facts_.sync_began_ns = started_ns;
            facts_.sync_done_bytes = 0;
            facts_.sync_total_bytes = std::min(*todo * HERALD_BLOCK_BYTES, disk_.bytes);
        } else {
            facts_.phase = WorkerPhase::catching_up;
        }
    }
    auto copied = copy_all(std::nullopt);
    if (!copied) return pass(copied);
    if (*copied != Copied::all) return {};
    auto settled = stream_->settle();
    if (!settled) return pass(settled);
    auto passed = pass_scan();
    if (!passed) return passed;
    if (session_over()) return {};
    facts_.unreadable_blocks = stream_->unreadable().size();
    if (facts_.unreadable_blocks > 0) {
        facts_.first_unreadable = *stream_->unreadable().begin();
        unreadable_retry_at_ = Clock::now() + kUnreadableRetry;
    }
    auto finished = stream_->finish_scan(false, wall_ns());
    if (!finished) return finished;
    auto flushed = stream_->flush();
    if (flushed) flushed = hand_over_segments();
    if (!flushed) return flushed;
    backlog_.pass_ended(started_ns, stream_->last_position());
    facts_.sync_began_ns = 0;
    facts_.phase = WorkerPhase::catching_up;
    if (std::exchange(disk_failing_, false)) facts_.error.clear();
    return {};
}

Result<void> DiskWorker::emit_changes() {
    // A writer that never rests must not keep the thread from its other work.
    for (unsigned batch = 0; batch < kBatchesMax && !under_pressure(); ++batch) {
        auto emitted = stream_->emit_changes(kBatchBytes);
        if (!emitted) return pass(emitted);
        if (!*emitted) break;
        auto handed = hand_over_segments();
        if (!handed) return handed;
    }
    auto closed = stream_->close_aged(wall_ns());
    if (closed) closed = hand_over_segments();
    return closed;
}

Result<void> DiskWorker::pass_scan() {
    for (;;) {
        if (stream_->scan_passed() || session_over()) return {};
        auto emitted = emit_changes();
        if (!emitted) return emitted;
        auto attended = attend();
        if (!attended) return attended;
        if (!stream_->scan_passed()) wait_until(Clock::now() + kPause / 10);
    }
}

bool DiskWorker::under_pressure() const {
    return uploader_->view().unstored_bytes + stream_->untaken_bytes() +
               reader_->bytes_in_flight() + stream_->bookkeeping_bytes() >=
           unsent_bytes_max();
}

Result<void> DiskWorker::take_read(const DiskReader::Done& done) {
    if (done.error != 0) {
        // The first of a scan; a failing disk would fill the log that it may lie on.
        if (stream_->unreadable().size() < kReadErrorsLogged) {
            spdlog::warn("{}: read at byte {}: {}", disk_.node().native(), done.chunk.offset,
                         errno_text(done.error));
        }
        if (stream_->unreadable().size() >= HERALD_UNREADABLE_BLOCKS_MAX) {
            disk_failing_ = true;
            return fail(ErrorKind::operator_needed,
                        "more than {} blocks of 64 KiB cannot be read: the disk is failing and "
                        "has to be replaced",
                        HERALD_UNREADABLE_BLOCKS_MAX);
        }
        for (const Chunk& smaller : stream_->read_failed(done.chunk.id)) {
            to_submit_.push_back(smaller);
        }
        return {};
    }
    facts_.sync_done_bytes += done.chunk.length;
    return stream_->read_done(done.chunk.id, done.data, wall_ns());
}

Result<void> DiskWorker::reads_back(Clock::time_point until) {
    const auto cancel = [&] {
        for (const Chunk& chunk : to_submit_) stream_->cancel(chunk.id);
        to_submit_.clear();
    };
    cancel();
    Result<void> result;
    while (result && reader_->in_flight() > 0 && Clock::now() < until) {
        result =
            reader_->wait([&](const DiskReader::Done& done) { return take_read(done); }, until);
    }
    cancel();
    if (result) result = hand_over_segments();
    return result;
}

Result<DiskWorker::Copied> DiskWorker::stop_short(Copied how, Clock::time_point until) {
    auto back = reads_back(until);
    if (!back) return pass(back);
    return how;
}

Result<DiskWorker::Copied> DiskWorker::copy_all(std::optional<Clock::time_point> deadline) {
    HERALD_ASSERT(to_submit_.empty());
    const uint64_t rate = host_.config.rate_limit_bytes_s;
    const auto until = deadline.value_or(Clock::time_point::max());
    rate_at_ = Clock::now();
    rate_tokens_ = double(rate) / 10;
    for (;;) {
        auto attended = attend();
        if (!attended) return pass(attended);
        if (session_over()) return stop_short(Copied::interrupted, until);
        if (deadline && Clock::now() >= *deadline) return stop_short(Copied::late, until);
        auto emitted = emit_changes();
        if (!emitted) return pass(emitted);
        bool held_back = false;
        while (reader_->room()) {
            if (to_submit_.empty()) {
                if (rate > 0) {
                    const auto now = Clock::now();
                    rate_tokens_ +=
                        double(rate) * std::chrono::duration<double>(now - rate_at_).count();
                    rate_tokens_ = std::min(rate_tokens_, double(rate));
                    rate_at_ = now;
                }
                // A freeze is short: nothing else may make it longer than the deadline.
                held_back = under_pressure() || (rate > 0 && !deadline && rate_tokens_ <= 0);
                if (held_back) break;
                for (const Chunk& chunk : stream_->take(read_bytes_)) {
                    to_submit_.push_back(chunk);
                    rate_tokens_ -= double(chunk.length);
                }
                if (to_submit_.empty()) break;
            }
            auto submitted = reader_->submit(to_submit_.front());
            if (!submitted) return pass(submitted);
            to_submit_.pop_front();
        }
        if (reader_->in_flight() > 0) {
            auto waited =
                reader_->wait([&](const DiskReader::Done& done) { return take_read(done); }, until);
            if (!waited) return pass(waited);
        } else if (!held_back && to_submit_.empty()) {
            return Copied::all;
        } else {
            // The room comes back with the acknowledgements. When none is to come, what is open is
            // in the way; before, closing it would only make segments smaller than they need be.
            if (uploader_->view().unstored_bytes == 0 && under_pressure()) {
                auto flushed = stream_->flush();
                if (flushed) flushed = hand_over_segments();
                if (!flushed) return pass(flushed);
            }
            wait_until(Clock::now() + kPause);
        }
        auto closed = stream_->close_aged(wall_ns());
        if (closed) closed = hand_over_segments();
        if (!closed) return pass(closed);
    }
}

Result<void> DiskWorker::hand_over_segments() {
    auto closed = stream_->take_closed();
    if (!closed) return pass(closed);
    for (SegmentPtr& segment : *closed) uploader_->add(std::move(segment));
    return {};
}

}  // namespace herald::replicator
