// SPDX-License-Identifier: Apache-2.0
// MemoryTracker: the contract of Tracker over plain memory, for tests and the simulator. Pinned is
// what outlives the process: a crash destroys the tracker and keeps (or loses) the Pinned.
// A write is submit() -> the data changes -> complete(), as a real one.
#pragma once

#include <map>
#include <vector>

#include "user/tracker/tracker.h"

namespace herald::test {

struct Pinned {
    explicit Pinned(uint64_t block_count)
        : blocks(block_count), live(words()), todo(words()), in_flight(words()) {}
    size_t words() const { return size_t((blocks + 63) / 64); }

    uint64_t blocks;
    std::vector<uint64_t> live, todo, in_flight;
    tracker::Continuity continuity;
    std::optional<std::string> gap = "first attach";
    std::map<uint64_t, uint64_t> open;  // write id -> block

    void mark_live(uint64_t block) { live[block / 64] |= 1ull << (block % 64); }
    void submit(uint64_t id, uint64_t block) {
        open[id] = block;
        mark_live(block);
    }
    void complete(uint64_t id) {
        mark_live(open.at(id));
        open.erase(id);
    }
    bool dirty(uint64_t block) const {
        return ((live[block / 64] | todo[block / 64] | in_flight[block / 64]) >> (block % 64)) & 1;
    }
};

class MemoryTracker : public tracker::Tracker {
  public:
    explicit MemoryTracker(Pinned& pinned)
        : pinned_(pinned), map_(pinned.live, pinned.todo, pinned.in_flight, pinned.blocks) {}

    std::string kind() const override { return "memory"; }
    std::optional<std::string> gap() const override { return pinned_.gap; }
    Result<void> clear_gap() override {
        pinned_.gap.reset();
        return {};
    }
    tracker::DirtyMap& map() override { return map_; }
    Result<void> drain() override {
        map_.absorb_live();
        return {};
    }
    Result<void> end_pass() override {
        for (const auto& [id, block] : pinned_.open) pinned_.mark_live(block);
        return {};
    }
    Result<bool> quiet(std::span<const tracker::Extent>) override { return pinned_.open.empty(); }
    tracker::Continuity continuity() const override { return pinned_.continuity; }
    Result<void> set_continuity(const tracker::Continuity& continuity) override {
        pinned_.continuity = continuity;
        return {};
    }
    Result<tracker::TrackerCounters> counters() const override {
        return tracker::TrackerCounters{0, 0, 0, pinned_.open.size()};
    }

  private:
    Pinned& pinned_;
    tracker::DirtyMap map_;
};

}  // namespace herald::test
