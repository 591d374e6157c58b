// SPDX-License-Identifier: Apache-2.0
// World: one machine with one disk, one server, a network between them, and everything that can
// go wrong, from one seed. After every event it checks
//   dirty_or_delivered: a block whose newest write is not stored is in the dirty map, or the map
//     is durably marked as not to be trusted;
//   acked_is_kept: what was acknowledged is in the catalog, byte for byte;
//   fenced: nothing is committed but by the newest epoch;
//   exact_at_point: at every accepted point the stored stream gives the disk as it was;
// and at the end that faults leave nothing behind: with the network whole again a last point
// equals the disk (torn_is_refused is in there: a damaged upload that was taken would show).
#pragma once

#include <set>
#include <string>

#include "tests/sim/agent.h"

namespace herald::sim {

struct Faults {
    double drop = 0.04;
    double repeat = 0.04;
    double slow = 0.08;    // delayed by seconds: arrives out of order
    double damage = 0.01;  // of an upload: a byte changed, or cut short
    double lost_completion = 0.05;
    double agent_crash = 0.002;
    double server_crash = 0.002;
    double server_full = 0.0005;
    double server_restored = 0.0003;  // from an old backup of its catalog
    double machine_reverted = 0.0003;
    double foreign_session = 0.0003;
    double tracker_gap = 0.0002;
};

struct Outcome {
    std::string failure;  // empty: all promises held
    uint64_t points = 0;
    uint64_t agent_crashes = 0;
    uint64_t server_crashes = 0;
    uint64_t compares = 0;
    uint64_t segments = 0;
    std::set<std::string> crashed_at;
};

class World : public Machine {
  public:
    World(uint64_t seed, Break broken, Faults faults = {});
    ~World() override;
    Outcome run(uint64_t events);

    uint64_t now_ms() const override { return now_ms_; }
    void request_session(uint64_t ticket, const wire::SessionRequest& request) override;
    void request_put(uint64_t ticket, const replicator::Session::Send& send) override;
    void request_digests(uint64_t ticket) override;
    Bytes read(uint64_t block) const override;
    void freeze() override;
    bool thaw() override;
    bool frozen() const override { return frozen_; }
    void tagged(const Uuid& tag) override;
    void adopted(const replicator::Verdict& verdict, uint64_t epoch) override;
    void at_step(const char* step) override;

  private:
    using Versions = std::vector<uint64_t>;
    struct Write {
        uint64_t id = 0;
        uint64_t block = 0;
        uint64_t version = 0;
        bool applied = false;
    };
    struct Snapshot {
        Versions disk;
        test::Pinned pinned;
        std::vector<Write> writes;
    };

    void event();
    void deliver();
    void travel(std::function<void()> arrive);
    void request(uint64_t ticket, std::function<Answer(Server&)> handle);
    void write_something();
    void complete(uint64_t write);
    void fault();
    void boot_agent();
    void boot_server();
    void restore_server();
    void revert_machine();
    void foreign_session();
    void rebuild_image();
    void apply(const vault::SegmentRow& row, bool check_points);
    void acknowledged(uint64_t stored);
    void committed(const vault::SegmentRow& row);
    void check();
    void check_at_rest();
    void fail_with(const std::string& what);
    void note(const std::string& what);

    uint64_t seed_;
    Random random_;
    Break broken_;
    Faults faults_;
    Outcome outcome_;
    Uuid machine_id_, disk_id_;
    uint64_t now_ms_ = 1;
    uint64_t sequence_ = 0;
    std::map<std::pair<uint64_t, uint64_t>, std::function<void()>> network_;

    // The machine.
    test::Pinned pinned_;
    Versions disk_;
    uint64_t next_version_ = 1;
    uint64_t next_write_ = 1;
    std::vector<Write> writes_;
    bool frozen_ = false;
    bool freeze_held_ = true;
    std::unique_ptr<Agent> agent_;
    uint64_t incarnation_ = 0;
    uint64_t agent_boots_at_ = 0;
    uint64_t agent_crash_in_ = 0;  // steps; 0: not armed
    std::set<uint64_t> outstanding_;
    std::optional<Snapshot> snapshot_;

    // The server.
    Kept kept_;
    std::unique_ptr<Server> server_;
    uint64_t server_boots_at_ = 0;
    uint64_t server_crash_in_ = 0;
    uint64_t full_until_ = 0;
    std::optional<vault::MemoryCatalog::State> backup_;
    Versions image_;  // what the stored stream gives

    // What was promised.
    std::map<uint64_t, Digest128> acked_;  // first position of an acknowledged segment -> its bytes
    std::map<Uuid, Versions> tagged_;
    bool agent_is_wrong_ = false;  // a restore or revert it cannot know of yet
    bool quiet_ = false;           // no more faults
    std::deque<std::string> log_;
};

}  // namespace herald::sim
