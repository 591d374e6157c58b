// SPDX-License-Identifier: Apache-2.0
// The ladder of one point: catch up while everything runs, freeze, read what is left, make sure
// that nothing was written meanwhile, thaw, and only then tag.
// The tag is appended after the thaw because only the thaw tells whether the freeze held; nothing
// else is appended between, so the tag's position is the frozen image all the same.
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>

#include "user/base/crash_point.h"
#include "user/replicator/disk_worker.h"
#include "user/replicator/worker_time.h"

namespace herald::replicator {

namespace {

constexpr std::chrono::milliseconds kFreezeDeadline{HERALD_FREEZE_DEADLINE_MS};
// A disk that hangs keeps the freeze and the thaw for ever; the guardian thaws at its deadline, and
// then nobody else waits for this disk any more.
constexpr std::chrono::milliseconds kFreezeOver{HERALD_FREEZE_DEADLINE_MS + 2000};
// Kept for the thaw itself.
constexpr std::chrono::milliseconds kThawMargin{500};
constexpr std::chrono::milliseconds kQuietPause{1};
// Other disks' freezes, a few that hang among them, and the writes of state files between.
constexpr std::chrono::milliseconds kFreezeWaitMax{2 * kFreezeOver};
constexpr std::chrono::seconds kSegmentsGoneMax{20};
constexpr std::chrono::seconds kPointRetryMax{30};
// From the request of an ordered tag to its place in the stream.
constexpr std::chrono::seconds kTagMax{20};

double ms(std::chrono::nanoseconds time) { return double(time.count()) / 1e6; }

std::string names_of(const std::vector<agent::Unfreezable>& unfreezable) {
    std::string names;
    for (const agent::Unfreezable& item : unfreezable) {
        names += (names.empty() ? "" : ", ") + item.what + " (" + item.cause + ")";
    }
    return names;
}

// So that little of it is left to be written during the freeze, also where nothing stops it.
Result<void> flush(const agent::DiskUse& use) {
    auto synced = agent::sync_filesystems(use.filesystems);
    for (const agent::Unfreezable& item : use.unfreezable) {
        if (synced && item.filesystem) synced = agent::sync_filesystems({&*item.filesystem, 1});
    }
    return synced;
}

// A filesystem that was not frozen may have been in the middle of something: at the point it is
// what a power cut would have left. Swap is nothing that a restored machine looks at.
hrl::Consistency consistency_of(const agent::DiskUse& use) {
    const bool all = std::none_of(use.unfreezable.begin(), use.unfreezable.end(),
                                  [](const agent::Unfreezable& item) { return item.holds_files; });
    return all ? hrl::Consistency::filesystem : hrl::Consistency::crash;
}

}  // namespace

Result<void> DiskWorker::serve_points() {
    const auto every = std::chrono::seconds(host_.config.points_every_s);
    const auto now = Clock::now();
    if (!std::exchange(point_due_known_, true) && facts_.last_point) {
        // A restart is no reason for a freeze: the last point may be younger than the interval.
        const uint64_t wall = wall_ns();
        const uint64_t last = facts_.last_point->time_ns;
        const std::chrono::nanoseconds age(wall > last ? wall - last : 0);
        if (wall >= last && age < every) next_point_at_ = now + (every - age);
    }
    if (every.count() > 0 && facts_.synced && now >= next_point_at_ && !session_over()) {
        PointRequest request;
        request.kind = hrl::TagKind::scheduled;
        request.name = "scheduled";
        in_point_ = true;
        auto report = take_point(request);
        in_point_ = false;
        if (report) {
            facts_.point_refusal.clear();
            storing_.push_back({*report, nullptr});
            next_point_at_ = now + every;
        } else {
            facts_.point_refusal = report.error().message;
            next_point_at_ = now + std::min<std::chrono::seconds>(every, kPointRetryMax);
            spdlog::warn("{}: scheduled point refused: {}", disk_.node().native(),
                         report.error().message);
            auto left = leave_point();
            if (!left) return left;
        }
    }
    for (;;) {
        std::shared_ptr<PendingPoint> pending;
        {
            const std::lock_guard lock(lock_);
            if (points_.empty()) return {};
            pending = points_.front();
            points_.pop_front();
        }
        if (pending->request.begin && !pending->request.begin()) continue;
        in_point_ = true;
        auto report = take_point(pending->request);
        in_point_ = false;
        if (report) {
            facts_.point_refusal.clear();
            if (pending->request.phase) pending->request.phase("storing");
            storing_.push_back({*report, pending});
        } else {
            spdlog::warn("{}: point '{}' refused: {}", disk_.node().native(), pending->request.name,
                         report.error().message);
            pending->answer.set_value(tl::unexpected<Error>(report.error()));
            auto left = leave_point();
            if (!left) return left;
        }
    }
}

// Passes until little is left, and room in memory for the frozen one.
Result<void> DiskWorker::prepare_point(const PointRequest& request, const agent::DiskUse& use) {
    if (request.phase) request.phase("catch_up");
    CatchUp catch_up;
    for (;;) {
        {
            const DiskWait::Mark mark(disk_wait_, kWriteBackMax);
            auto synced = flush(use);
            if (!synced) return synced;
            // Writers of the bare device leave their bytes in its page cache.
            if (::fsync(reader_->fd()) != 0) return fail_errno(errno, "fsync of the disk");
        }
        auto passed = one_pass();
        if (!passed) return passed;
        if (session_over()) return fail(ErrorKind::retry, "the session ended");
        if (facts_.unreadable_blocks > 0) {
            return fail(ErrorKind::operator_needed,
                        "{} blocks cannot be read, the first at byte {}", facts_.unreadable_blocks,
                        facts_.first_unreadable * HERALD_BLOCK_BYTES);
        }
        auto drained = stream_->drain();
        if (!drained) return pass(drained);
        const auto advice = catch_up.after_pass(*drained * HERALD_BLOCK_BYTES);
        if (advice == CatchUp::Advice::freeze) break;
        if (advice == CatchUp::Advice::refuse) {
            return fail(ErrorKind::retry, "{}", catch_up.reason());
        }
    }
    const auto until = Clock::now() + kSegmentsGoneMax;
    while (uploader_->view().unstored_bytes > unsent_bytes_max() / 2) {
        auto attended = attend();
        if (!attended) return attended;
        if (session_over()) return fail(ErrorKind::retry, "the session ended");
        if (Clock::now() >= until) {
            const auto trouble = uploader_->view().trouble;
            return fail(ErrorKind::retry, "unsent segments fill the memory for them: {}",
                        trouble ? trouble->message : "the server is slower than the disk");
        }
        wait_until(Clock::now() + kQuietPause * 20);
    }
    return {};
}

// While frozen: everything that is dirty is read, until nothing was written since. What cannot be
// frozen may go on writing: then another round follows, and only a round in which the tracker saw
// no write, begun or ended, makes the point. So it is exact whatever the filesystems do.
Result<void> DiskWorker::read_frozen(std::span<const tracker::Extent> extents,
                                     Clock::time_point deadline, const agent::DiskUse& use) {
    const auto refuse = [&](const char* what) {
        return fail(ErrorKind::retry, "{} until the freeze deadline of {} ms{}{}", what,
                    kFreezeDeadline.count(), use.unfreezable.empty() ? "" : "; it cannot freeze ",
                    names_of(use.unfreezable));
    };
    for (;;) {
        auto quiet = tracker_->quiet(extents);
        if (!quiet) return pass(quiet);
        if (*quiet) break;
        if (Clock::now() >= deadline)
            return refuse("writes to frozen filesystems stayed in flight");
        if (stopping()) return fail(ErrorKind::retry, "the replicator is stopping");
        wait_until(Clock::now() + kQuietPause);
    }
    if (!stream_->scanning()) {
        auto begun = stream_->begin_scan(true, wall_ns());
        if (!begun) return pass(begun);
    }
    for (;;) {
        auto drained = stream_->drain();
        if (!drained) return pass(drained);
        auto copied = copy_all(deadline);
        if (!copied) return pass(copied);
        if (*copied == Copied::interrupted) return fail(ErrorKind::retry, "the session ended");
        if (*copied == Copied::late) {
            return refuse(reader_->in_flight() > 0 ? "the disk did not answer all reads"
                                                   : "the last changes could not all be read");
        }
        auto settled = stream_->settle();
        if (!settled) return pass(settled);
        if (*settled) return {};
        if (!stream_->unreadable().empty()) {
            return fail(ErrorKind::operator_needed, "the block at byte {} cannot be read",
                        *stream_->unreadable().begin() * HERALD_BLOCK_BYTES);
        }
        if (Clock::now() >= deadline) {
            return refuse("something outside the frozen filesystems went on writing to the disk");
        }
    }
}

Result<void> DiskWorker::leave_point() {
    auto back = reads_back();
    const DiskWait::Mark mark(disk_wait_);
    freeze_.reset();
    return back;
}

Result<PointReport> DiskWorker::take_ordered_point(const PointRequest& request) {
    if (request.hold) {
        return fail(ErrorKind::operator_needed,
                    "a point of an ordered disk freezes nothing, so that there is nothing to hold");
    }
    if (request.phase) request.phase("catch_up");
    const auto until = Clock::now() + kTagMax;
    hrl::Tag tag;
    tag.id = Uuid::random();
    tag.kind = request.kind;
    tag.consistency = hrl::Consistency::crash;
    tag.name = request.name;
    for (;;) {
        auto passed = one_pass();
        if (!passed) return pass(passed);
        if (session_over()) return fail(ErrorKind::retry, "the session ended");
        auto requested = stream_->request_tag(tag);
        if (requested) break;
        if (Clock::now() >= until) return pass(requested);
        wait_until(Clock::now() + kQuietPause * 20);
    }
    for (;;) {
        auto emitted = emit_changes();
        if (!emitted) return pass(emitted);
        const auto place = stream_->tag_place(tag.id);
        if (place && !place->refusal.empty()) return fail(ErrorKind::retry, "{}", place->refusal);
        if (place) {
            PointReport report;
            report.id = tag.id;
            report.name = request.name;
            report.consistency = tag.consistency;
            report.position = place->position;
            report.time_ns = place->time_ns;
            auto handed = hand_over_segments();
            if (!handed) return pass(handed);
            return report;
        }
        auto attended = attend();
        if (!attended) return pass(attended);
        if (session_over()) return fail(ErrorKind::retry, "the session ended");
        if (Clock::now() >= until) {
            return fail(ErrorKind::retry, "the tag was not reached in {} s: {}", kTagMax.count(),
                        under_pressure() ? "unsent segments fill the memory for them"
                                         : "a write before it has not completed");
        }
        wait_until(Clock::now() + kQuietPause);
    }
}

Result<PointReport> DiskWorker::take_point(const PointRequest& request) {
    const auto phase = [&](const char* name) {
        if (request.phase) request.phase(name);
    };
    if (!tracker_->continuity().synced) {
        return fail(ErrorKind::retry, "the initial sync has not ended yet");
    }
    if (stream_->ordered()) return take_ordered_point(request);
    const auto find_use = [&]() -> Result<agent::DiskUse> {
        const DiskWait::Mark mark(disk_wait_, kDiskAnswerMax, kHostDevices);
        auto now = agent::identify(disk_.node());
        if (!now) return pass(now);
        return agent::find_use(*now);
    };
    auto use = find_use();
    if (!use) return pass(use);
    auto prepared = prepare_point(request, *use);
    if (!prepared) return pass(prepared);
    // Mounts may have come and gone during a long catch-up.
    use = find_use();
    if (!use) return pass(use);
    std::vector<tracker::Extent> extents;
    for (const auto& filesystem : use->filesystems) {
        for (const auto& range : filesystem.extents) extents.push_back({range.offset, range.bytes});
    }

    PointReport report;
    report.id = Uuid::random();
    report.name = request.name;
    report.consistency = consistency_of(*use);
    for (const agent::Unfreezable& item : use->unfreezable) {
        report.not_frozen.push_back(item.what + ": " + item.cause);
    }
    Result<void> frozen_part;
    agent::Thawed thawed;
    {
        phase("freezing");
        // Until the thaw: no state file is written, and the log waits in memory.
        const FreezeLock::Freeze freeze(host_.state->freeze_lock(), kFreezeOver,
                                        Clock::now() + kFreezeWaitMax);
        if (!freeze.began()) {
            return fail(ErrorKind::retry,
                        "freeze: a file in the state directory {} has been written for {} s, or "
                        "other disks are frozen",
                        host_.state->path().native(),
                        std::chrono::duration_cast<std::chrono::seconds>(kFreezeWaitMax).count());
        }
        const agent::LogGate::Closed gate(*host_.log_gate, kFreezeOver);
        const auto began = Clock::now();
        const auto given_up = began + kFreezeOver;  // until then something may be frozen
        if (!use->filesystems.empty()) {
            const DiskWait::Mark mark(disk_wait_, kWriteBackMax);
            freeze_ =
                std::make_unique<FreezeAside>(host_.freezer, use->filesystems, kFreezeDeadline);
            const auto taken = freeze_->frozen(given_up);
            if (!taken) {
                return fail(ErrorKind::retry, "freeze: the disk did not answer until the deadline");
            }
            if (!*taken) return pass(*taken, "freeze");
        }
        const auto deadline = began + kFreezeDeadline - kThawMargin;
        report.time_ns = wall_ns();
        crash_point("replicator.frozen");
        phase("frozen");
        frozen_part = read_frozen(extents, deadline, *use);
        if (frozen_part && request.hold) {
            const auto held = Clock::now();
            const auto left =
                std::chrono::duration_cast<std::chrono::milliseconds>(deadline - held);
            frozen_part = request.hold(std::max(left, std::chrono::milliseconds(0)));
            report.hold_ms = ms(Clock::now() - held);
            // What the client looked at has to be what was read.
            if (frozen_part) {
                auto settled = stream_->settle();
                if (!settled) {
                    frozen_part = pass(settled);
                } else if (!*settled) {
                    frozen_part = fail(ErrorKind::retry, "the disk was written during the hold{}{}",
                                       use->unfreezable.empty() ? "" : "; it cannot freeze ",
                                       names_of(use->unfreezable));
                }
            }
        }
        if (frozen_part) frozen_part = stream_->finish_scan(true, wall_ns());
        if (freeze_ && reader_->in_flight() > 0) {
            // A thaw writes to the disk, which does not even read.
            freeze_->leave_to_guardian(given_up);
            thawed.frozen = Clock::now() - began;
        } else if (freeze_) {
            const DiskWait::Mark mark(disk_wait_);
            if (const auto done = freeze_->thaw(given_up)) {
                thawed = *done;
            } else {
                thawed.expired = true;
                thawed.cause = "the disk did not answer the thaw";
                thawed.frozen = Clock::now() - began;
            }
        }
        crash_point("replicator.thawed");
    }
    report.frozen_ms = ms(thawed.frozen);
    facts_.frozen_ms_total += report.frozen_ms;
    phase("thawed");
    if (!frozen_part) return pass(frozen_part);  // always so with reads in flight
    if (thawed.expired) {
        return fail(ErrorKind::retry, "the freeze did not hold: {}", thawed.cause);
    }
    freeze_.reset();
    if (thawed.guardian_lost) {
        spdlog::warn("{}: the guardian died during the freeze", disk_.node().native());
    }
    hrl::Tag tag;
    tag.id = report.id;
    tag.time_ns = report.time_ns;
    tag.kind = request.kind;
    tag.consistency = report.consistency;
    tag.name = request.name;
    auto position = stream_->tag(tag, wall_ns());
    if (!position) return pass(position);
    report.position = *position;
    auto handed = hand_over_segments();
    if (!handed) return pass(handed);
    return report;
}

}  // namespace herald::replicator
