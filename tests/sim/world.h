// SPDX-License-Identifier: Apache-2.0
// World is one simulated history: a protected machine with its replicator, at times a clone of
// it, a network that lies, a process server, and everything that may go wrong with them, all
// chosen by one seed. After the troubled part faults stop, and the stream has to converge.
// Callers: one thread. Failure: a Violation that names the promise.
#pragma once

#include <memory>

#include "tests/sim/agent.h"

namespace herald::sim {

struct Figures {
    uint64_t agent_crashes = 0;
    uint64_t server_crashes = 0;
    uint64_t clones = 0;
    uint64_t twins = 0;  // clones in one and the same session
    uint64_t reverts = 0;
    uint64_t reboots = 0;
    uint64_t gaps = 0;
    uint64_t catalog_restores = 0;
    uint64_t damaged = 0;
    uint64_t commits = 0;
    uint64_t points = 0;
    uint64_t calm_steps_max = 0;
    // Of ordered machines.
    uint64_t boundaries = 0;
    uint64_t sank_to_extents = 0;
    uint64_t sank_to_map = 0;

    Figures& operator+=(const Figures& other);
};

class World {
  public:
    // ordered: the machine's tracker sees the order of writes.
    World(uint64_t seed, bool ordered);
    ~World();

    void run();
    const Trace& trace() const { return trace_; }
    const Figures& figures() const { return figures_; }

  private:
    struct Plan {
        uint64_t disk_bytes = 0;
        uint64_t steps = 0;
        double agent_crash = 0;  // at any durable step
        double server_crash = 0;
        double server_trouble = 0;
        double write = 0;  // a step of the disk's writes, at any durable step
        bool clones = false;
        bool reverts = false;
        bool reboots = false;
        bool gaps = false;
        bool restores = false;
        bool full = false;
    };
    struct Protected {
        std::unique_ptr<Machine> machine;
        std::unique_ptr<Agent> agent;
        uint64_t wakes_at = 0;  // step
        uint64_t ends_at = 0;   // step
        uint64_t dies_at = 0;   // step; 0: not planned
        bool cut_off = false;   // until then none of its segments arrive

        void end() {
            agent.reset();  // it holds on to its machine
            *this = {};
        }
    };

    void make_plan();
    void wire_server();
    std::unique_ptr<Agent> boot(Machine& machine, const std::string& name);
    void one_step();
    void misfortune();
    void run_agent(Protected& who, void (Agent::*what)());
    void writes(Machine& machine, bool may_begin);
    void lose_events(Machine& machine);
    void take_snapshot();
    void deliver_request(unsigned depth);
    void deliver_answer();
    wire::ServerResponse serve(const Request& request);
    void start_server();
    void crash_server();
    void restore_catalog();
    void make_clone();
    void check();
    void converge();
    bool converged() const;
    double crash_chance(const char* step, double base) const;

    uint64_t seed_;
    bool ordered_;
    Random random_;
    Trace trace_;
    Plan plan_;
    uint64_t now_ms_ = 1'000'000;
    bool calm_ = false;
    uint64_t version_ = 0;
    Uuid machine_id_;
    Uuid disk_id_;
    Oracle oracle_;
    Network network_;
    Server server_;
    Protected main_;
    Protected clone_;
    bool clone_due_ = false;
    std::optional<Machine> snapshot_;
    std::vector<vault::MemoryCatalog::State> backups_;
    uint64_t newest_epoch_ = 0;        // ever granted
    unsigned depth_ = 0;               // requests within requests
    std::set<std::string> being_put_;  // paths
    Figures figures_;
};

}  // namespace herald::sim
