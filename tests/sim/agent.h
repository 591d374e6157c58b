// SPDX-License-Identifier: Apache-2.0
// Agent is a replicator on a machine: the shell around the cores (DiskStream, Session, CatchUp)
// that the daemon is elsewhere, in small steps between which anything may happen. Destroying it is
// SIGKILL; only the machine stays.
// Promise: it does what DiskWorker and Uploader do, in their order, and decides nothing of its own
// that a core decides.
// Callers: the world, one thread. Throws AgentCrash out of any durable step when told to.
#pragma once

#include <deque>
#include <functional>
#include <optional>

#include "tests/sim/machine.h"
#include "tests/sim/network.h"
#include "tests/sim/oracle.h"
#include "user/replicator/catch_up.h"
#include "user/replicator/disk_stream.h"
#include "user/replicator/session.h"
#include "user/tracker/cbt_tracker.h"

namespace herald::sim {

struct AgentCrash {};

// Then the server is asked again.
inline constexpr uint64_t kAnswerMsMax = 3000;

// What an agent needs of the world.
struct Host {
    Random& random;
    Trace& trace;
    Oracle& oracle;
    uint64_t& now_ms;
    bool& calm;  // no faults of its own any more
    Uuid machine;
    Uuid disk;
    std::function<void(Request)> send;
    std::function<void(const char* step)> at_step;  // may throw AgentCrash
};

class Agent {
  public:
    Agent(Host host, Machine& machine, std::string name);

    void step();    // of the disk's thread
    void upload();  // of the upload threads
    void answered(const Answer& answer);

    const std::string& name() const { return name_; }
    void rename(std::string name) { name_ = std::move(name); }
    Machine& machine() { return machine_; }
    uint64_t life() const { return life_; }
    Uuid session() const { return session_ ? session_->id() : Uuid{}; }
    // When it waits for nothing but time: until then.
    std::optional<uint64_t> waits_until() const;
    // Nothing is dirty, scanned, unsent or unacknowledged.
    bool idle() const;
    // What it is doing, for the report of a history that does not converge.
    std::string describe();
    // Whether a session of this process began with a compare or a whole scan.
    bool compared() const { return compared_; }
    void want_point() { point_wanted_ = true; }

  private:
    enum class Phase { idle, asking, comparing, streaming, resting };
    enum class PointStage { catching_up, quieting, copying, tagging };
    struct Read {
        replicator::Chunk chunk;
        Cells cells;
    };
    struct Point {
        PointStage stage = PointStage::catching_up;
        replicator::CatchUp catch_up;
        bool leaky = false;  // something that no freeze stops goes on writing
        Cells cells;
    };

    void attach();
    void begin_session();
    void await_grant();
    void compare();
    void stream_step();
    void between_scans();
    bool copy_step();
    void end_pass(bool quiescent);
    bool held_back() const;
    void emit_changes();
    bool request_tag();
    void point_step();
    void refuse_point(const char* why);
    void end_session();
    void attend();
    void hand_over();
    void gap_found(const Error& error);
    Read begin_read(const replicator::Chunk& chunk);
    void look_again(Read& read);
    Bytes bytes_of(const Read& read) const;
    void send_digest_request();
    uint64_t now_ns() const { return host_.now_ms * 1'000'000; }

    Host host_;
    Machine& machine_;
    std::string name_;
    uint64_t life_ = 0;  // of one session; answers to another one are not ours
    std::unique_ptr<tracker::Tracker> tracker_;
    tracker::CbtTracker* driver_ = nullptr;  // of an ordered machine
    std::optional<replicator::DiskStream> stream_;
    std::optional<replicator::Session> session_;
    wire::SessionRequest request_;
    Phase phase_ = Phase::idle;
    std::vector<Read> reads_;
    bool compared_ = false;
    bool passing_ = false;  // the scan's reads are done, its end has not been reached
    std::set<Uuid> tags_;   // requested
    std::optional<Point> point_;
    bool point_wanted_ = false;
    std::optional<Bytes> digests_;
    uint64_t digests_asked_at_ = 0;  // 0: not under way
    uint64_t next_block_ = 0;        // of the compare
    uint64_t rest_until_ = 0;
    std::map<uint64_t, uint64_t> deadlines_;  // by ticket of a request under way
};

}  // namespace herald::sim
