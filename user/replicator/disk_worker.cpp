// SPDX-License-Identifier: Apache-2.0
#include "user/replicator/disk_worker.h"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "user/base/crash_point.h"
#include "user/replicator/worker_time.h"
#include "user/tracker/cbt_tracker.h"
#include "user/tracker/ebpf_tracker.h"

namespace herald::replicator {

namespace {

constexpr std::chrono::seconds kFailureWaitMax{60};
constexpr std::chrono::seconds kTaskMax{10};
constexpr uint64_t kCountedOften = (4ull << 40) / HERALD_BLOCK_BYTES;

tracker::EbpfOptions tracker_options(const Host& host, const agent::DiskIdentity& disk,
                                     const Uuid& id) {
    tracker::EbpfOptions options;
    options.bpf_dir = host.config.bpf_dir;
    options.state_dir = host.config.state_dir;
    options.device = disk.node();
    options.disk = id;
    return options;
}

Result<std::unique_ptr<tracker::Tracker>> attach_tracker(const Host& host,
                                                         const agent::DiskIdentity& disk,
                                                         const Uuid& id) {
    if (disk.by_driver) {
        tracker::CbtOptions options;
        options.device = {disk.major, disk.minor};
        options.disk = id;
        options.note = host.config.state_dir / (to_string(id) + ".given-up");
        auto tracker = tracker::CbtTracker::attach(std::move(options));
        if (!tracker) return pass(tracker);
        return std::unique_ptr<tracker::Tracker>(std::move(*tracker));
    }
    auto tracker = tracker::EbpfTracker::attach(tracker_options(host, disk, id));
    if (!tracker) return pass(tracker);
    return std::unique_ptr<tracker::Tracker>(std::move(*tracker));
}

}  // namespace

DiskWorker::DiskWorker(Host& host, agent::DiskIdentity disk, const Remembered& remembered)
    : host_(host), disk_(std::move(disk)), id_(disk_.disk_id(host.config.machine)) {
    // One disk gets 64 MiB of segments and 16 reads of 1 MiB; many share the same sum.
    const uint64_t share = share_bytes();
    read_bytes_ = share >= (16u << 20) ? HERALD_RECORD_DATA_BYTES_MAX : 4 * HERALD_BLOCK_BYTES;
    reads_ = size_t(std::clamp<uint64_t>(share / 4 / read_bytes_, 2, HERALD_READS_PER_DISK_MAX));

    UploaderOptions options;
    options.server = host_.config.server;
    options.tls = host_.tls;
    options.disk = id_;
    uploader_ = std::make_unique<Uploader>(
        options, [this] { wake(); }, [this] { return looked_after_ && !disk_wait_.silent(); });
    facts_.last_point = remembered.last_point;
    resync_ = remembered.order;
    published_ = facts_;
    thread_ = std::thread([this] { run(); });
}

uint64_t DiskWorker::share_bytes() const {
    return HERALD_REPLICATOR_BYTES_MAX /
           std::clamp<size_t>(host_.disks.load(), 1, HERALD_DISKS_MAX);
}

// Shrinks at once when another disk is protected.
uint64_t DiskWorker::unsent_bytes_max() const {
    return std::min<uint64_t>(share_bytes() / 2, HERALD_UNSENT_BYTES_MAX);
}

DiskWorker::~DiskWorker() {
    stop();
    join();
    uploader_.reset();  // its threads wake this object, with what is declared after it
}

agent::DiskIdentity DiskWorker::disk() const {
    const std::lock_guard lock(lock_);
    return disk_;
}

void DiskWorker::join() {
    const std::lock_guard lock(join_lock_);
    if (thread_.joinable()) thread_.join();
}

bool DiskWorker::join_by(Clock::time_point until) {
    {
        std::unique_lock lock(lock_);
        HERALD_ASSERT(stop_);
        while (!finished_) {
            Clock::time_point give_up = until;
            // What was not read stays dirty: the end need not wait for a disk that hangs.
            if (const auto call = disk_wait_.call()) {
                give_up = std::min(until, std::max(call->since, stopped_at_) + call->patience);
            }
            const auto now = Clock::now();
            if (now >= give_up) return false;
            finish_.wait_until(lock, std::min(give_up, now + kPause));
        }
    }
    join();
    return true;
}

void DiskWorker::stop() {
    const std::lock_guard lock(lock_);
    if (!stop_) stopped_at_ = Clock::now();
    stop_ = true;
    woken_ = true;
    wake_.notify_all();
}

Result<void> DiskWorker::detach() {
    stop();
    join();
    // The driver is taken out of the volume's table by whoever put it there.
    if (disk_.by_driver) return {};
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
    status.server = uploader_->view();
    status.now_ns = wall_ns();
    status.silent = disk_wait_.silent();
    const std::lock_guard lock(lock_);
    status.path = disk_.node().native();
    status.identity = disk_.identity;
    status.disk_bytes = disk_.bytes;
    status.points_waiting = points_.size();
    status.facts = published_;
    if (ended_) status.facts.phase = WorkerPhase::stopped;
    return status;
}

std::string DiskWorker::no_answer() const {
    const auto silence = disk_wait_.silent().value_or(DiskWait::Silence{"the disk"});
    return fmt::format("{}: {} has not answered for {} s", disk_.node().native(), silence.what,
                       silence.since.count());
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
        if (!disk_wait_.silent()) {
            return fail(ErrorKind::retry, "{}: busy; ask again", disk().node().native());
        }
        const std::lock_guard lock(lock_);
        return fail(ErrorKind::retry, "{}", no_answer());
    }
    return future.get();
}

std::future<Result<PointReport>> DiskWorker::point(PointRequest request) {
    auto pending = std::make_shared<PendingPoint>();
    pending->request = std::move(request);
    auto future = pending->answer.get_future();
    const std::lock_guard lock(lock_);
    // While there is no session nobody takes requests out: those of clients that gave up must not
    // heap up. The others are bounded by the control socket's connections.
    std::erase_if(points_, [](const std::shared_ptr<PendingPoint>& waiting) {
        return waiting->request.gone && waiting->request.gone();
    });
    if (ended_) {
        pending->answer.set_value(fail(ErrorKind::retry, "{}: stopping", disk_.node().native()));
    } else if (disk_wait_.silent()) {
        pending->answer.set_value(fail(ErrorKind::retry, "{}", no_answer()));
    } else if (points_.size() >= HERALD_CONTROL_CONNECTIONS_MAX) {
        pending->answer.set_value(fail(ErrorKind::retry, "{}: {} points are waiting already",
                                       disk_.node().native(), points_.size()));
    } else {
        points_.push_back(std::move(pending));
        woken_ = true;
        wake_.notify_all();
    }
    return future;
}

Result<void> DiskWorker::resync(ResyncHow how) {
    {
        const std::lock_guard lock(lock_);
        if (ended_) return fail(ErrorKind::retry, "{}: stopping", disk_.node().native());
    }
    // What is marked dirty is sent without an order.
    if (how == ResyncHow::dirty) {
        wake();
        return {};
    }
    // Before the answer, or a kill right after it would forget the order.
    auto saved = host_.state->save_order(id_, how);
    if (!saved) return saved;
    const std::lock_guard lock(lock_);
    if (resync_ != ResyncHow::full) resync_ = how;
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
        looked_after_ = false;
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
        publish();
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
    const std::lock_guard lock(lock_);
    finished_ = true;
    finish_.notify_all();
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
            facts_.last_point = point.report;
            host_.state->save_last_point(id_, point.report);
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

    const auto identify = [&](const std::filesystem::path& path) {
        const DiskWait::Mark mark(disk_wait_);
        return agent::identify(path);
    };
    auto now = identify(disk_.path);
    const bool by_path = now && now->identity == disk_.identity;
    if (!by_path) now = identify(disk_.node());
    if (!now || now->identity != disk_.identity) {
        // Unplugged and plugged in again it may have another name.
        const std::string here =
            now ? fmt::format("{} is now another disk ({})", disk_.node().native(), now->identity)
                : now.error().message;
        {
            const DiskWait::Mark mark(disk_wait_);
            now = agent::find_disk(disk_.identity);
        }
        if (!now) {
            return fail(ErrorKind::operator_needed, "{}; {}", here, now.error().message);
        }
        spdlog::warn("{}; {} is {} now", here, disk_.identity, now->node().native());
    }
    {
        const std::lock_guard lock(lock_);
        // As the operator said it, while that leads to it.
        now->path = by_path ? disk_.path : now->node();
        disk_ = *now;
    }
    auto tracker = [&] {
        const DiskWait::Mark mark(disk_wait_);
        return attach_tracker(host_, *now, id_);
    }();
    if (!tracker) return pass(tracker, "attach the tracker");
    tracker_ = std::move(*tracker);
    auto reader =
        DiskReader::open(now->node(), host_.config.io_engine, reads_, read_bytes_, disk_wait_);
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
    if (!disk_failing_) facts_.error.clear();
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

Result<void> DiskWorker::attend() {
    std::deque<std::function<void()>> tasks;
    std::optional<ResyncHow> how;
    {
        const std::lock_guard lock(lock_);
        tasks.swap(tasks_);
        // Stays an order until it is carried out, whatever ends the session before that.
        if (streaming_ && !in_point_) how = resync_;
    }
    for (const auto& task : tasks) task();

    if (streaming_) {
        const auto view = uploader_->view();
        if (view.grant && !view.ended) {
            auto acknowledged = stream_->acknowledged(view.stored, view.received);
            if (!acknowledged) return acknowledged;
            auto handed = hand_over_segments();
            if (!handed) return handed;
            backlog_.received(view.received);
            settle_storing_points(view.stored, nullptr);
        }
    }
    if (how) {
        auto done = carry_out(*how);
        if (!done) return done;
    }
    if (Clock::now() >= publish_at_) publish();
    return {};
}

Result<void> DiskWorker::carry_out(ResyncHow how) {
    if (how == ResyncHow::full) {
        if (stream_->scanning()) return {};  // when this scan has ended
        spdlog::info("{}: full resync ordered by an operator", disk_.node().native());
        facts_.gap = "full scan ordered by an operator";
        auto marked = stream_->mark_all();
        if (!marked) return marked;
        carried_out(how);
    } else if (!std::exchange(compare_ordered_, true)) {
        // The next session compares: after_session() writes that down.
        sessions_ended_ = 0;  // an order waits for nothing
        uploader_->end({FailureKind::diverged, "digest compare ordered by an operator", 0});
    }
    return {};
}

// The tracker's memory says so now, and outlives a kill as the order's file does.
void DiskWorker::carried_out(ResyncHow how) {
    const std::lock_guard lock(lock_);
    if (resync_ == how) resync_.reset();
    host_.state->drop_order(id_, how);
}

void DiskWorker::publish() {
    publish_at_ = Clock::now() + kPublishInterval;
    if (tracker_) {
        const tracker::DirtyMap& map = tracker_->map();
        facts_.todo_blocks = map.todo_blocks();
        facts_.in_flight_blocks = map.in_flight_blocks();
        if (Clock::now() >= count_live_at_) {
            // The whole bitmap is read for it: of a disk of many TiB less often.
            facts_.live_blocks = map.live_blocks();
            count_live_at_ = Clock::now() + kPublishInterval * (map.blocks() / kCountedOften);
        }
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
