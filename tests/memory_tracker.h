// SPDX-License-Identifier: Apache-2.0
// MemoryTracker: the contract of Tracker over plain memory, for tests and the simulator. Pinned is
// what outlives the process: a crash destroys the tracker and keeps (or loses) the Pinned.
// A write is submit() -> the data changes -> complete(), as a real one; or lose_completion().
#pragma once

#include <algorithm>
#include <map>
#include <set>
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
    std::set<uint64_t> lost;            // of the open ones: completed, and nobody saw it

    void mark_live(uint64_t block) { live[block / 64] |= 1ull << (block % 64); }
    void submit(uint64_t id, uint64_t block) {
        open[id] = block;
        mark_live(block);
    }
    void complete(uint64_t id) {
        mark_live(open.at(id));
        open.erase(id);
    }
    void lose_completion(uint64_t id) { lost.insert(id); }
    bool is_open(uint64_t block) const {
        return std::any_of(open.begin(), open.end(),
                           [&](const auto& write) { return write.second == block; });
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
        for (const auto& [id, block] : pinned_.open) map_.mark({block, 1});
        // The device is idle: what is open only because its completion was lost is over.
        if (pinned_.open.size() == pinned_.lost.size()) {
            pinned_.open.clear();
            pinned_.lost.clear();
        }
        return {};
    }
    Result<bool> quiet(std::span<const tracker::Extent>) override {
        auto marked = end_pass();
        if (!marked) return pass(marked);
        return pinned_.open.empty();
    }
    tracker::Continuity continuity() const override { return pinned_.continuity; }
    Result<void> set_continuity(const tracker::Continuity& continuity) override {
        pinned_.continuity = continuity;
        return {};
    }
    Result<tracker::TrackerCounters> counters() const override {
        tracker::TrackerCounters counters;
        counters.open_extents = pinned_.open.size();
        return counters;
    }

  private:
    Pinned& pinned_;
    tracker::DirtyMap map_;
};

}  // namespace herald::test
