// SPDX-License-Identifier: Apache-2.0
#include "user/replicator/disk_worker.h"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "user/base/crash_point.h"
#include "user/replicator/worker_time.h"
#include "user/tracker/ebpf_tracker.h"

namespace herald::replicator {

namespace {

constexpr std::chrono::milliseconds kPublishInterval{200};
constexpr std::chrono::milliseconds kPause{50};  // looking again where no event is promised
constexpr std::chrono::seconds kFailureWaitMax{60};
constexpr std::chrono::seconds kSessionWaitMax{300};
constexpr std::chrono::seconds kSessionLongEnough{60};
constexpr std::chrono::seconds kLastUploadsMax{5};
constexpr std::chrono::seconds kUnreadableRetry{30};
constexpr std::chrono::seconds kTaskMax{10};

tracker::EbpfOptions tracker_options(const Host& host, const agent::DiskIdentity& disk,
                                     const Uuid& id) {
    tracker::EbpfOptions options;
    options.bpf_dir = host.config.bpf_dir;
    options.state_dir = host.config.state_dir;
    options.device = disk.node();
    options.disk = id;
    return options;
}

}  // namespace

DiskWorker::DiskWorker(Host& host, agent::DiskIdentity disk)
    : host_(host), disk_(std::move(disk)), id_(disk_.disk_id(host.config.machine)) {
    // One disk gets 64 MiB of segments and 16 reads of 1 MiB; many share the same sum.
    const uint64_t share = share_bytes();
    read_bytes_ = share >= (16u << 20) ? HERALD_RECORD_DATA_BYTES_MAX : 4 * HERALD_BLOCK_BYTES;
    reads_ = size_t(std::clamp<uint64_t>(share / 4 / read_bytes_, 2, HERALD_READS_PER_DISK_MAX));

    UploaderOptions options;
    options.server = host_.config.server;
    options.tls = host_.tls;
    options.disk = id_;
    uploader_ = std::make_unique<Uploader>(options, [this] { wake(); });
    facts_.last_point = host_.state->last_point(id_);
    published_ = facts_;
    thread_ = std::thread([this] { run(); });
}

uint64_t DiskWorker::share_bytes() const {
    return HERALD_REPLICATOR_BYTES_MAX /
           std::clamp<size_t>(host_.disks.load(), 1, HERALD_DISKS_MAX);
}

// Shrinks at once when another disk is protected.
uint64_t DiskWorker::unsent_bytes_max() const {
    return std::min<uint64_t>(share_bytes() / 4 * 3, HERALD_UNSENT_BYTES_MAX);
}

DiskWorker::~DiskWorker() {
    stop();
    join();
}

void DiskWorker::join() {
    const std::lock_guard lock(join_lock_);
    if (thread_.joinable()) thread_.join();
}

void DiskWorker::stop() {
    const std::lock_guard lock(lock_);
    stop_ = true;
    woken_ = true;
    wake_.notify_all();
}

Result<void> DiskWorker::detach() {
    stop();
    join();
    return tracker::EbpfTracker::detach(tracker_options(host_, disk_, id_));
}

bool DiskWorker::stopping() const {
    const std::lock_guard lock(lock_);
    return stop_;
}

void DiskWorker::wake() {
    const std::lock_guard lock(lock_);
    woken_ = true;
    wake_.notify_all();
}

void DiskWorker::wait_until(Clock::time_point until) {
    std::unique_lock lock(lock_);
    wake_.wait_until(lock, until, [&] { return woken_ || stop_; });
    woken_ = false;
}

DiskStatus DiskWorker::status() const {
    DiskStatus status;
    status.disk = id_;
    status.path = disk_.node().native();
    status.identity = disk_.identity;
    status.server = uploader_->view();
    status.now_ns = wall_ns();
    const std::lock_guard lock(lock_);
    status.disk_bytes = disk_.bytes;
    status.facts = published_;
    if (ended_) status.facts.phase = WorkerPhase::stopped;
    return status;
}

Result<MapView> DiskWorker::map(size_t runs_max) {
    auto answer = std::make_shared<std::promise<Result<MapView>>>();
    auto future = answer->get_future();
    {
        const std::lock_guard lock(lock_);
        if (ended_) return fail(ErrorKind::retry, "{}: stopping", disk_.node().native());
        tasks_.push_back([this, answer, runs_max] {
            if (!tracker_) {
                answer->set_value(fail(ErrorKind::retry, "{}: the tracker is not attached: {}",
                                       disk_.node().native(), facts_.error));
                return;
            }
            const tracker::DirtyMap& map = tracker_->map();
            answer->set_value(MapView{map.blocks(), map.live_blocks(), map.todo_blocks(),
                                      map.in_flight_blocks(), map.dirty_runs(runs_max)});
        });
        woken_ = true;
        wake_.notify_all();
    }
    if (future.wait_for(kTaskMax) != std::future_status::ready) {
        return fail(ErrorKind::retry, "{}: busy; ask again", disk_.node().native());
    }
    return future.get();
}

std::future<Result<PointReport>> DiskWorker::point(PointRequest request) {
    auto pending = std::make_shared<PendingPoint>();
    pending->request = std::move(request);
    auto future = pending->answer.get_future();
    const std::lock_guard lock(lock_);
    if (ended_) {
        pending->answer.set_value(fail(ErrorKind::retry, "{}: stopping", disk_.node().native()));
    } else {
        points_.push_back(std::move(pending));
        woken_ = true;
        wake_.notify_all();
    }
    return future;
}

Result<void> DiskWorker::resync(ResyncHow how) {
    const std::lock_guard lock(lock_);
    if (ended_) return fail(ErrorKind::retry, "{}: stopping", disk_.node().native());
    resync_ = how;
    woken_ = true;
    wake_.notify_all();
    return {};
}

void DiskWorker::run() {
    unsigned failures = 0;
    while (!stopping()) {
        const auto began = Clock::now();
        auto result = protect();
        streaming_ = false;
        if (stopping()) break;
        if (Clock::now() - began > kSessionLongEnough) failures = 0;
        if (!result) {
            facts_.error = result.error().message;
            spdlog::error("{}: {}", disk_.node().native(), facts_.error);
            refuse_points(result.error());
        }
        facts_.phase = WorkerPhase::attaching;
        const auto until =
            Clock::now() + std::min<Clock::duration>(
                               kFailureWaitMax, std::chrono::seconds(1u << std::min(failures, 6u)));
        ++failures;
        while (!stopping() && Clock::now() < until) {
            (void)attend();
            wait_until(until);
        }
    }
    const Error stopped{ErrorKind::retry, disk_.node().native() + ": the replicator is stopping",
                        0};
    std::deque<std::function<void()>> tasks;
    {
        const std::lock_guard lock(lock_);
        ended_ = true;
        tasks.swap(tasks_);
    }
    for (const auto& task : tasks) task();
    refuse_points(stopped);
    settle_storing_points(0, &stopped);
    uploader_->stop();
    stream_.reset();
    reader_.reset();
    tracker_.reset();
}

void DiskWorker::refuse_points(const Error& error) {
    std::deque<std::shared_ptr<PendingPoint>> points;
    {
        const std::lock_guard lock(lock_);
        points.swap(points_);
    }
    for (const auto& pending : points) pending->answer.set_value(tl::unexpected<Error>(error));
}

void DiskWorker::settle_storing_points(uint64_t stored, const Error* lost) {
    while (!storing_.empty()) {
        StoringPoint& point = storing_.front();
        if (point.report.position <= stored) {
            facts_.last_point = point_to_save_ = point.report;
            spdlog::info("{}: point '{}' is stored, frozen {:.1f} ms", disk_.node().native(),
                         point.report.name, point.report.frozen_ms);
            // Whoever asks for the status after the answer sees the point in it.
            publish();
            if (point.pending) point.pending->answer.set_value(point.report);
        } else if (lost) {
            if (point.pending) point.pending->answer.set_value(tl::unexpected<Error>(*lost));
        } else {
            break;
        }
        storing_.pop_front();
    }
}

// One life of the tracker on this thread; ends well when it is to be attached anew.
Result<void> DiskWorker::protect() {
    stream_.reset();
    if (reader_) read_bytes_before_ += reader_->read_bytes();
    reader_.reset();
    tracker_.reset();
    facts_.phase = WorkerPhase::attaching;

    auto now = agent::identify(disk_.path);
    if (!now) now = agent::identify(disk_.node());
    if (!now) return pass(now);
    if (now->identity != disk_.identity) {
        return fail(ErrorKind::operator_needed, "{} is now another disk ({}), not {}",
                    disk_.path.native(), now->identity, disk_.identity);
    }
    {
        const std::lock_guard lock(lock_);
        disk_.bytes = now->bytes;
    }
    auto tracker = tracker::EbpfTracker::attach(tracker_options(host_, *now, id_));
    if (!tracker) return pass(tracker, "attach the tracker");
    tracker_ = std::move(*tracker);
    auto reader = DiskReader::open(now->node(), host_.config.io_engine, reads_, read_bytes_);
    if (!reader) return pass(reader);
    reader_ = std::move(*reader);

    StreamOptions options;
    options.machine = host_.config.machine;
    options.disk = id_;
    options.name = fmt::format("{} on {}", now->node().native(), host_.config.machine_name);
    if (size_t end = HERALD_NAME_BYTES_MAX; options.name.size() > end) {
        // At the begin of a UTF-8 character.
        while (end > 0 && (uint8_t(options.name[end]) & 0xc0) == 0x80) --end;
        options.name.resize(end);
    }
    options.identity = disk_.identity;
    options.disk_bytes = now->bytes;
    options.segment_bytes = std::min(host_.config.segment_bytes, unsent_bytes_max() / 4);
    options.segment_age_ms = host_.config.segment_age_ms;
    options.read_bytes_max = read_bytes_;
    stream_ = std::make_unique<DiskStream>(
        options, *tracker_, [] { return Uuid::random(); },
        [](const char* step) { crash_point(step); });
    facts_.tracker = tracker_->kind();
    facts_.io_engine = to_string(reader_->engine_kind());
    facts_.error.clear();
    spdlog::info("{}: tracked by {}, {} bytes, {}", now->node().native(), facts_.tracker,
                 now->bytes, tracker_->gap() ? "gap: " + *tracker_->gap() : std::string("no gap"));

    while (!stopping()) {
        auto session = run_session();
        streaming_ = false;
        to_submit_.clear();
        if (session) continue;
        if (session.error().kind != ErrorKind::resync) return session;
        // The tracker's gap stays with the tracker; a fresh attach also sees a replaced disk.
        spdlog::warn("{}: {}", disk_.node().native(), session.error().message);
        return {};
    }
    return {};
}

Result<bool> DiskWorker::wait_for_grant() {
    facts_.phase = WorkerPhase::asking;
    publish();
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
    auto request = stream_->intend(Uuid::random());
    if (!request) return pass(request);
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
        serve_points();
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
            wait_until(next);
        } while (true);
        if (point_to_save_) {
            auto saved = host_.state->save_last_point(id_, *point_to_save_);
            if (!saved) spdlog::warn("{}", saved.error().message);
            point_to_save_.reset();
        }
    }
    if (stopping()) {
        // What was read already is not read again after the restart.
        auto flushed = stream_->flush();
        if (flushed) flushed = hand_over_segments();
        if (!flushed) return flushed;
        const auto until = Clock::now() + kLastUploadsMax;
        for (;;) {
            const auto view = uploader_->view();
            const bool done = view.stored >= stream_->last_position();
            if (done || view.ended || view.trouble || Clock::now() >= until) break;
            wait_until(std::min(until, Clock::now() + kPause));
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
    if (!fenced) {
        auto distrusted = stream_->distrust(cause.message);
        if (!distrusted) return distrusted;
    }
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

Result<void> DiskWorker::one_pass() {
    const uint64_t started_ns = wall_ns();
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
    return {};
}

bool DiskWorker::under_pressure() const {
    return uploader_->view().unstored_bytes + stream_->open_bytes() + reader_->bytes_in_flight() +
               stream_->bookkeeping_bytes() >=
           unsent_bytes_max();
}

Result<DiskWorker::Copied> DiskWorker::copy_all(std::optional<Clock::time_point> deadline) {
    HERALD_ASSERT(to_submit_.empty());
    const uint64_t rate = host_.config.rate_limit_bytes_s;
    const auto take = [&](const DiskReader::Done& done) -> Result<void> {
        if (done.error != 0) {
            spdlog::warn("{}: read at byte {}: {}", disk_.node().native(), done.chunk.offset,
                         errno_text(done.error));
            if (stream_->unreadable().size() >= HERALD_UNREADABLE_BLOCKS_MAX) {
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
    };
    const auto stop_short = [&](Copied how) -> Result<Copied> {
        // What was read is emitted, what was only noted is to do again.
        for (const Chunk& chunk : to_submit_) stream_->cancel(chunk.id);
        to_submit_.clear();
        while (reader_->in_flight() > 0) {
            auto waited = reader_->wait(take);
            if (!waited) return pass(waited);
        }
        for (const Chunk& chunk : to_submit_) stream_->cancel(chunk.id);
        to_submit_.clear();
        auto handed = hand_over_segments();
        if (!handed) return pass(handed);
        return how;
    };
    rate_at_ = Clock::now();
    rate_tokens_ = double(rate) / 10;
    for (;;) {
        auto attended = attend();
        if (!attended) return pass(attended);
        if (session_over()) return stop_short(Copied::interrupted);
        if (deadline && Clock::now() >= *deadline) return stop_short(Copied::late);
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
            auto waited = reader_->wait(take);
            if (!waited) return pass(waited);
        } else if (!held_back && to_submit_.empty()) {
            return Copied::all;
        } else {
            // Close what is open, or the room it takes would never come back.
            auto flushed = stream_->flush();
            if (flushed) flushed = hand_over_segments();
            if (!flushed) return pass(flushed);
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

Result<void> DiskWorker::attend() {
    std::deque<std::function<void()>> tasks;
    std::optional<ResyncHow> how;
    {
        const std::lock_guard lock(lock_);
        tasks.swap(tasks_);
        if (streaming_ && !in_point_) how = std::exchange(resync_, std::nullopt);
    }
    for (const auto& task : tasks) task();

    if (streaming_) {
        const auto view = uploader_->view();
        if (view.grant && !view.ended) {
            auto acknowledged = stream_->acknowledged(view.stored);
            if (!acknowledged) return acknowledged;
            auto handed = hand_over_segments();
            if (!handed) return handed;
            backlog_.received(view.received);
            settle_storing_points(view.stored, nullptr);
        }
    }
    if (how == ResyncHow::full) {
        spdlog::info("{}: full resync ordered by an operator", disk_.node().native());
        facts_.gap = "full scan ordered by an operator";
        auto marked = stream_->mark_all();
        if (!marked) return marked;
    } else if (how == ResyncHow::digest) {
        sessions_ended_ = 0;  // an order waits for nothing
        uploader_->end({FailureKind::diverged, "digest compare ordered by an operator", 0});
    }
    if (Clock::now() >= publish_at_) publish();
    return {};
}

void DiskWorker::publish() {
    publish_at_ = Clock::now() + kPublishInterval;
    if (tracker_) {
        const tracker::DirtyMap& map = tracker_->map();
        facts_.todo_blocks = map.todo_blocks();
        facts_.in_flight_blocks = map.in_flight_blocks();
        facts_.live_blocks = map.live_blocks();
        facts_.synced = tracker_->continuity().synced;
        if (auto counters = tracker_->counters()) facts_.counters = *counters;
    }
    if (stream_) facts_.last_position = stream_->last_position();
    if (reader_) facts_.read_bytes = read_bytes_before_ + reader_->read_bytes();
    facts_.backlog_since_ns = backlog_.since_ns();
    const std::lock_guard lock(lock_);
    published_ = facts_;
}

}  // namespace herald::replicator
