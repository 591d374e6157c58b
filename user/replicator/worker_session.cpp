// SPDX-License-Identifier: Apache-2.0
// One session of a disk's thread: the grant, the compare if one is needed, passes until the session
// or the thread ends, and the wait before the next.
#include <spdlog/spdlog.h>

#include <algorithm>

#include "user/base/crash_point.h"
#include "user/replicator/disk_worker.h"
#include "user/replicator/worker_time.h"

namespace herald::replicator {

namespace {

constexpr std::chrono::seconds kSessionWaitMax{300};
constexpr std::chrono::seconds kLastUploadsMax{5};

}  // namespace

Result<bool> DiskWorker::wait_for_grant() {
    for (;;) {
        auto attended = attend();
        if (!attended) return pass(attended);
        if (stopping()) return false;
        const auto view = uploader_->view();
        if (view.ended) return false;
        if (view.grant) return true;
        wait_until(Clock::now() + kPublishInterval);
    }
}

Result<void> DiskWorker::run_session() {
    compare_ordered_ = false;
    auto request = stream_->intend(Uuid::random());
    if (!request) return pass(request);
    // Before the uploader forgets the last session: "protected" is said of a session.
    facts_.phase = WorkerPhase::asking;
    publish();
    uploader_->begin(*request);
    auto granted = wait_for_grant();
    if (!granted) return pass(granted);
    if (!*granted) {
        const auto ended = uploader_->view().ended;
        if (!ended) return {};  // stopping
        auto dropped = stream_->drop_intention();
        if (!dropped) return dropped;
        return after_session(*ended);
    }

    const wire::SessionGrant grant = *uploader_->view().grant;
    auto verdict = stream_->adopt(grant, wall_ns());
    if (!verdict) return pass(verdict);
    streaming_ = true;
    looked_after_ = true;
    backlog_.reset();
    facts_.gap = verdict->gap;
    const Error lost{ErrorKind::retry, "the session ended before the server stored the point", 0};
    settle_storing_points(verdict->baseline == Baseline::continues ? grant.head : 0, &lost);
    spdlog::info("{}: session {} granted, epoch {}, head {}: {}{}{}", disk_.node().native(),
                 to_string(request->session), grant.epoch, grant.head, to_string(verdict->baseline),
                 verdict->gap.empty() ? "" : ": ", verdict->gap);
    auto handed = hand_over_segments();
    if (!handed) return handed;

    const auto began = Clock::now();
    if (verdict->baseline == Baseline::compare) {
        auto compared = compare();
        if (!compared) return compared;
    }
    facts_.phase = WorkerPhase::catching_up;
    while (!session_over()) {
        const auto pass_began = Clock::now();
        auto passed = one_pass();
        if (!passed) return passed;
        auto served = serve_points();
        if (!served) return served;
        const auto next = pass_began + std::chrono::milliseconds(host_.config.pass_interval_ms);
        do {
            auto attended = attend();
            if (!attended) return attended;
            bool hurry;
            {
                const std::lock_guard lock(lock_);
                hurry = !points_.empty();
            }
            if (hurry || session_over() || Clock::now() >= next) break;
            auto emitted = emit_changes();
            if (!emitted) return emitted;
            wait_until(stream_->ordered() ? std::min(next, Clock::now() + kPause / 2) : next);
        } while (true);
    }
    if (stopping()) {
        // What was read already is not read again after the restart.
        auto flushed = stream_->flush();
        if (flushed) flushed = hand_over_segments();
        if (!flushed) return flushed;
        const auto until = Clock::now() + kLastUploadsMax;
        for (;;) {
            auto attended = attend();
            if (!attended) return attended;
            const auto view = uploader_->view();
            const bool done = view.stored >= stream_->last_position();
            if (done || view.ended || view.trouble || Clock::now() >= until) break;
            std::this_thread::sleep_for(kPause);  // wait_until() waits for nothing any more
        }
        return attend();
    }
    if (Clock::now() - began > kSessionLongEnough) sessions_ended_ = 0;
    return after_session(*uploader_->view().ended);
}

Result<void> DiskWorker::after_session(const Failure& cause) {
    streaming_ = false;
    auto dropped = reader_->drop();
    if (!dropped) return dropped;
    spdlog::warn("{}: the session ended: {}: {}", disk_.node().native(), to_string(cause.kind),
                 cause.message);
    const bool fenced = cause.kind == FailureKind::fenced;
    if (!fenced || compare_ordered_) {
        auto distrusted = stream_->distrust(cause.message);
        if (!distrusted) return distrusted;
    }
    if (std::exchange(compare_ordered_, false)) carried_out(ResyncHow::digest);
    // Two agents that fence each other in turn, or a server that ends every session, must not keep
    // both sides busy with compares. Once may be an operator's order, and waits for nothing.
    const unsigned before = sessions_ended_++;
    if (!fenced && before == 0) return {};
    facts_.phase = fenced ? WorkerPhase::superseded : WorkerPhase::attaching;
    if (!fenced) {
        facts_.error =
            fmt::format("the server ended {} sessions in a row: {}", before + 1, cause.message);
    }
    const auto until =
        Clock::now() + std::min<Clock::duration>(kSessionWaitMax,
                                                 std::chrono::seconds(1u << std::min(before, 9u)));
    publish();
    refuse_points({ErrorKind::retry, fenced ? "superseded by a newer session" : facts_.error, 0});
    while (!stopping() && Clock::now() < until) {
        auto attended = attend();
        if (!attended) return attended;
        wait_until(until);
    }
    facts_.error.clear();
    return {};
}

bool DiskWorker::session_over() const {
    if (stopping()) return true;
    return uploader_->view().ended.has_value();
}

Result<void> DiskWorker::compare() {
    facts_.phase = WorkerPhase::comparing;
    facts_.sync_began_ns = wall_ns();
    facts_.sync_done_bytes = 0;
    facts_.sync_total_bytes = disk_.bytes;
    uint64_t different = 0;
    CompareHooks hooks;
    hooks.digests = [&](uint64_t first, uint64_t count) -> Result<Bytes> {
        for (unsigned tries = 0;; ++tries) {
            auto bytes = uploader_->get(
                fmt::format("/v1/disks/{}/digests?first={}&count={}", to_string(id_), first, count),
                count * 16 + 4096);
            if (bytes || session_over()) return bytes;
            spdlog::warn("{}: digests: {}", disk_.node().native(), bytes.error().message);
            const auto until =
                Clock::now() + std::chrono::milliseconds(250u << std::min(tries, 6u));
            while (!session_over() && Clock::now() < until) {
                auto attended = attend();
                if (!attended) return pass(attended);
                wait_until(until);
            }
        }
    };
    hooks.differs = [&](tracker::BlockRun run) {
        stream_->differs(run);
        different += run.count;
    };
    Result<void> attended;
    hooks.keep_on = [&](uint64_t done_bytes) {
        facts_.sync_done_bytes = done_bytes;
        attended = attend();
        return attended && !session_over();
    };
    auto outcome = compare_digests(*reader_, disk_.bytes, read_bytes_, hooks);
    facts_.sync_began_ns = 0;
    if (!attended) return attended;
    if (!outcome) {
        auto dropped = reader_->drop();
        if (!dropped) return dropped;
        if (session_over()) return {};
        return pass(outcome);
    }
    if (*outcome == CompareOutcome::stopped) return {};
    spdlog::info("{}: digest compare: {} blocks differ", disk_.node().native(), different);
    crash_point("replicator.compared");
    return stream_->baseline_done();
}

}  // namespace herald::replicator
