// SPDX-License-Identifier: Apache-2.0
// DiskWorker protects one disk on a thread of its own: attaches the tracker, starts sessions, runs
// passes and takes points. Trouble of one disk stays with that disk: one that hangs while its
// filesystems are frozen holds up the points and state files of the others until the freeze's
// deadline, and no longer.
// Promise: a point is answered when the server has stored it, or with the reason why there is none;
// filesystems are never left frozen; stop() leaves the tracker tracking.
// Callers: any thread. Owns: tracker, reader, stream, uploader; borrows the Host.
// Failure: named in status(); retried with back-off for ever.
#pragma once

#include <atomic>
#include <deque>
#include <future>

#include "user/agent/freeze.h"
#include "user/agent/log_gate.h"
#include "user/replicator/backlog.h"
#include "user/replicator/catch_up.h"
#include "user/replicator/config.h"
#include "user/replicator/digest_compare.h"
#include "user/replicator/disk_stream.h"
#include "user/replicator/freeze_aside.h"
#include "user/replicator/state_dir.h"

namespace herald::replicator {

// What all disks of one daemon share.
struct Host {
    Config config;
    std::shared_ptr<const wire::TlsContext> tls;
    agent::Freezer freezer;
    std::shared_ptr<agent::LogGate> log_gate;
    std::unique_ptr<StateDir> state;
    // Disks that are protected, or will be: each gets its share of HERALD_REPLICATOR_BYTES_MAX.
    std::atomic<size_t> disks{1};
};

struct PointRequest {
    std::string name;
    hrl::TagKind kind = hrl::TagKind::manual;
    // When set: called before all else, on the disk's thread. False: whoever asked has gone, and
    // nothing of this request is called any more.
    std::function<bool()> begin;
    // When set: whoever asked has gone. Called on any thread, under the worker's lock.
    std::function<bool()> gone;
    // Progress; called on the disk's thread, also while frozen: must not touch a filesystem.
    std::function<void(const char* phase)> phase;
    // When set: called while frozen; an error refuses the point.
    std::function<Result<void>(std::chrono::milliseconds remaining)> hold;
};

struct MapView {
    uint64_t blocks = 0;
    uint64_t live_blocks = 0;
    uint64_t todo_blocks = 0;
    uint64_t in_flight_blocks = 0;
    std::vector<tracker::BlockRun> runs;
};

class DiskWorker {
  public:
    // Reads no file and looks at no disk itself. Throws when the system has no thread left.
    DiskWorker(Host& host, agent::DiskIdentity disk, const Remembered& remembered);
    ~DiskWorker();

    void stop();
    void join();
    // After stop(). False: the thread has not ended by then, or its disk does not answer, so that
    // it may never end: this object must not be destroyed.
    bool join_by(std::chrono::steady_clock::time_point until);
    // Also removes the tracker, once the thread has ended: after join_by(), or it may take for
    // ever.
    Result<void> detach();

    // As it was last found: its name may change while it is protected.
    agent::DiskIdentity disk() const;
    const Uuid& id() const { return id_; }
    DiskStatus status() const;
    Result<MapView> map(size_t runs_max);
    std::future<Result<PointReport>> point(PointRequest request);
    // The order outlives a kill from here on; it is carried out when there is a session.
    Result<void> resync(ResyncHow how);

  private:
    using Clock = std::chrono::steady_clock;
    struct PendingPoint {
        PointRequest request;
        std::promise<Result<PointReport>> answer;
    };
    struct StoringPoint {
        PointReport report;
        std::shared_ptr<PendingPoint> pending;
    };
    enum class Copied { all, interrupted, late };

    // disk_worker.cpp: the thread, and what others ask of it.
    void run();
    Result<void> protect();
    // Acknowledgements, tasks of other threads, figures.
    Result<void> attend();
    void publish();
    uint64_t share_bytes() const;
    uint64_t unsent_bytes_max() const;
    void wait_until(Clock::time_point until);
    void wake();
    bool stopping() const;
    void refuse_points(const Error& error);
    Result<void> carry_out(ResyncHow how);
    void carried_out(ResyncHow how);
    void settle_storing_points(uint64_t stored, const Error* lost);
    std::string no_answer() const;

    // worker_session.cpp
    Result<void> run_session();
    Result<bool> wait_for_grant();
    Result<void> compare();
    Result<void> after_session(const Failure& cause);
    // True when the session or the thread is to end.
    bool session_over() const;

    // worker_pass.cpp
    Result<void> one_pass();
    // Ordered: what the tracker has, as far as there is memory for it.
    Result<void> emit_changes();
    // Ordered: until the stream has passed what the scan's reads may have seen, or the session
    // ends.
    Result<void> pass_scan();
    // Late: reads may still be in flight, reads_back() waits for them.
    Result<Copied> copy_all(std::optional<Clock::time_point> deadline);
    Result<void> take_read(const DiskReader::Done& done);
    Result<Copied> stop_short(Copied how, Clock::time_point until);
    // What was read is emitted, what was only noted is to do again.
    Result<void> reads_back(Clock::time_point until = Clock::time_point::max());
    Result<void> hand_over_segments();
    bool under_pressure() const;

    // point.cpp: the ladder of one point.
    Result<void> serve_points();
    Result<PointReport> take_point(const PointRequest& request);
    // Ordered: a tag among the changes, with no freeze.
    Result<PointReport> take_ordered_point(const PointRequest& request);
    // After a point that was refused: waits for what the disk still has of it.
    Result<void> leave_point();
    Result<void> prepare_point(const PointRequest& request, const agent::DiskUse& use);
    Result<void> read_frozen(std::span<const tracker::Extent> extents, Clock::time_point deadline,
                             const agent::DiskUse& use);

    Host& host_;
    agent::DiskIdentity disk_;  // written by the thread under lock_; its own reads take none
    const Uuid id_;
    uint64_t read_bytes_ = 0;
    size_t reads_ = 0;

    DiskWait disk_wait_;  // outlives the reader and the uploader
    // A session runs and its disk is read: the server may believe so. Also read by the uploader.
    std::atomic<bool> looked_after_{false};

    // The thread's own.
    std::unique_ptr<tracker::Tracker> tracker_;
    std::unique_ptr<DiskReader> reader_;
    std::unique_ptr<DiskStream> stream_;
    std::unique_ptr<Uploader> uploader_;
    Backlog backlog_;
    bool streaming_ = false;        // adopted: acknowledgements are this session's
    unsigned sessions_ended_ = 0;   // in a row, by the server, none of them long
    bool compare_ordered_ = false;  // the session was ended for it
    Clock::time_point next_point_at_{};
    bool point_due_known_ = false;
    Clock::time_point unreadable_retry_at_{};
    bool disk_failing_ = false;  // facts_.error says so until a scan ends
    Clock::time_point publish_at_{};
    Clock::time_point count_live_at_{};
    bool in_point_ = false;
    std::unique_ptr<FreezeAside> freeze_;
    std::deque<StoringPoint> storing_;
    std::deque<Chunk> to_submit_;
    double rate_tokens_ = 0;
    Clock::time_point rate_at_{};
    WorkerFacts facts_;
    uint64_t read_bytes_before_ = 0;  // of readers closed earlier

    mutable std::mutex lock_;  // guards all below
    std::condition_variable wake_;
    bool woken_ = false;
    bool stop_ = false;
    Clock::time_point stopped_at_{};
    bool ended_ = false;     // answers no more
    bool finished_ = false;  // holds nothing any more
    std::condition_variable finish_;
    std::optional<ResyncHow> resync_;
    std::deque<std::function<void()>> tasks_;
    std::deque<std::shared_ptr<PendingPoint>> points_;
    WorkerFacts published_;

    std::mutex join_lock_;
    std::thread thread_;
};

}  // namespace herald::replicator
