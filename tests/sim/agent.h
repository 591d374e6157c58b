// SPDX-License-Identifier: Apache-2.0
// Agent: the replicator's cores (DiskStream, Session) with a shell that does one small thing at a
// time, chosen at random among what a real one could be doing. Its memory is gone when it is
// destroyed; the pinned part of the tracker is the machine's.
// A crash is the exception AgentCrash, thrown at a named step.
#pragma once

#include <deque>
#include <optional>

#include "tests/memory_tracker.h"
#include "tests/sim/random.h"
#include "tests/sim/server.h"
#include "user/replicator/disk_stream.h"
#include "user/replicator/session.h"

namespace herald::sim {

struct AgentCrash {};

// Rules broken on purpose, to see that the simulator notices.
enum class Break {
    nothing,
    early_clear,    // bits are cleared when a segment is sent, not when it is stored
    trust_always,   // a session that does not follow ours is taken as if it did
    no_open_marks,  // writes in flight at a pass's end are not marked again
    tag_anywhere,   // a tag without making sure that nothing was written meanwhile
    forget_sent,    // what may have been sent is not remembered across a crash
    old_epoch,      // the server commits what a superseded session sends
    skip_compare,   // a compare is given up half-way and called finished
};
std::optional<Break> parse_break(std::string_view name);

// What the agent asks of the machine around it.
class Machine {
  public:
    virtual ~Machine() = default;
    virtual uint64_t now_ms() const = 0;
    virtual void request_session(uint64_t ticket, const wire::SessionRequest& request) = 0;
    virtual void request_put(uint64_t ticket, const replicator::Session::Send& send) = 0;
    virtual void request_digests(uint64_t ticket) = 0;
    virtual Bytes read(uint64_t block) const = 0;
    // Stops the writers (false: they cannot all be stopped); thaw says whether it held.
    virtual void freeze() = 0;
    virtual bool thaw() = 0;
    virtual bool frozen() const = 0;
    // The image that this tag claims to be.
    virtual void tagged(const Uuid& tag) = 0;
    virtual void adopted(const replicator::Verdict& verdict, uint64_t epoch) = 0;
    virtual void at_step(const char* step) = 0;
};

class Agent {
  public:
    Agent(Machine& machine, test::Pinned& pinned, Random& random, const Uuid& machine_id,
          const Uuid& disk_id, Break broken);
    // One thing.
    void step();
    void answer(uint64_t ticket, const Answer& answer);
    // The answer did not come in time.
    void timed_out(uint64_t ticket);
    void want_point() { point_wanted_ = true; }
    bool idle() const;
    std::string describe() const;

  private:
    struct Read {
        replicator::Chunk chunk;
        std::optional<Bytes> data;
    };
    enum class State { no_session, asking, comparing, running };

    void begin_session();
    void adopt();
    void compare_one();
    void run_one();
    void read_one();
    void end_scan();
    void pump();
    void hand_over();
    void must(const Result<void>& result, const char* what);

    Machine& machine_;
    test::Pinned& pinned_;
    Random& random_;
    Break broken_;
    test::MemoryTracker tracker_;
    replicator::DiskStream stream_;
    std::optional<replicator::Session> session_;
    State state_ = State::no_session;
    bool was_asking_ = false;
    uint64_t generation_ = 0;  // in the upper bits of a ticket
    std::optional<Bytes> digests_;
    bool digests_asked_ = false;
    uint64_t compare_next_ = 0;
    std::deque<Read> reads_;
    bool point_wanted_ = false;
    bool point_ = false;  // the open scan is a point's, under the freeze
    unsigned point_rounds_ = 0;
};

}  // namespace herald::sim
