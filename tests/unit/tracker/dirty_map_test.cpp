// SPDX-License-Identifier: Apache-2.0
// What DirtyMap promises, as plain cases and against a model.
#include "user/tracker/dirty_map.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <deque>
#include <iostream>
#include <random>
#include <set>

#include "tests/catch.hpp"

using namespace herald::tracker;

namespace {

struct Maps {
    explicit Maps(uint64_t blocks)
        : live((blocks + 63) / 64),
          todo(live.size()),
          in_flight(live.size()),
          map(live, todo, in_flight, blocks) {}
    void write(uint64_t block) { live[block / 64] |= uint64_t{1} << (block % 64); }
    bool dirty(uint64_t block) const {
        return ((live[block / 64] | todo[block / 64] | in_flight[block / 64]) >> (block % 64)) & 1;
    }
    std::vector<uint64_t> live, todo, in_flight;
    DirtyMap map;
};

using Runs = std::vector<BlockRun>;

uint64_t test_seed() {
    const char* text = std::getenv("HERALD_SEED");
    const uint64_t seed = text ? std::strtoull(text, nullptr, 0) : std::random_device{}();
    std::cout << "seed " << seed << "\n";
    return seed;
}

uint64_t scaled(uint64_t check, uint64_t nightly) {
    const char* tier = std::getenv("HERALD_TIER");
    return tier && std::string_view(tier) == "nightly" ? nightly : check;
}

}  // namespace

TEST_CASE("a live bit becomes a block to do and leaves the live map") {
    Maps maps(200);
    maps.write(0);
    maps.write(64);
    maps.write(199);
    CHECK(maps.map.absorb_live() == 3);
    CHECK(maps.map.live_blocks() == 0);
    CHECK(maps.map.todo_blocks() == 3);
}

TEST_CASE("take hands out runs from the cursor on and round the end") {
    Maps maps(200);
    maps.map.mark({60, 10});
    maps.map.mark({2, 3});
    uint64_t cursor = 66;
    CHECK(maps.map.take(6, 100, cursor) == Runs{{66, 4}, {2, 2}});
    CHECK(cursor == 4);
    CHECK(maps.map.take(100, 100, cursor) == Runs{{4, 1}, {60, 6}});
    CHECK(maps.map.take(100, 100, cursor).empty());
    CHECK(maps.map.in_flight_blocks() == 13);
}

TEST_CASE("take keeps to the longest run it is allowed") {
    Maps maps(200);
    maps.map.mark({10, 100});
    uint64_t cursor = 0;
    uint64_t next = 10;
    for (const BlockRun& run : maps.map.take(1000, 16, cursor)) {
        CHECK(run.first == next);
        CHECK(run.count <= 16);
        next += run.count;
    }
    CHECK(next == 110);
}

TEST_CASE("mark_all marks each block of a disk whose last word is not full") {
    Maps maps(65);
    maps.map.mark_all();
    CHECK(maps.map.todo_blocks() == 65);
    CHECK(maps.todo[1] == 1);
    CHECK(maps.map.dirty_runs(10) == Runs{{0, 65}});
}

TEST_CASE("an acknowledgement clears only what was emitted at or before its position") {
    Maps maps(100);
    maps.map.mark({0, 20});
    uint64_t cursor = 0;
    REQUIRE(maps.map.take(20, 20, cursor) == Runs{{0, 20}});
    maps.map.emitted({0, 10}, 5);
    maps.map.emitted({10, 10}, 6);
    maps.map.acknowledge(4);
    CHECK(maps.map.in_flight_blocks() == 20);
    maps.map.acknowledge(5);
    CHECK(maps.map.in_flight_blocks() == 10);
    maps.map.acknowledge(6);
    CHECK(maps.map.in_flight_blocks() == 0);
}

TEST_CASE("a block emitted again keeps its bit when the older record is acknowledged") {
    Maps maps(64);
    uint64_t cursor = 0;
    maps.map.mark({7, 1});
    (void)maps.map.take(1, 1, cursor);
    maps.map.emitted({7, 1}, 1);
    maps.write(7);
    maps.map.absorb_live();
    (void)maps.map.take(1, 1, cursor);

    SECTION("after the second record was emitted") {
        maps.map.emitted({7, 1}, 2);
        maps.map.acknowledge(1);
        CHECK(maps.map.in_flight_blocks() == 1);
        maps.map.acknowledge(2);
        CHECK(maps.map.in_flight_blocks() == 0);
    }
    SECTION("while it is still being read") {
        maps.map.acknowledge(1);
        CHECK(maps.dirty(7));
    }
    SECTION("and when the second reading failed") {
        maps.map.give_back({7, 1});
        maps.map.acknowledge(1);
        CHECK(maps.map.todo_blocks() == 1);
        CHECK(maps.map.in_flight_blocks() == 0);
    }
}

TEST_CASE("what is remembered of emitted blocks is counted until it is acknowledged") {
    Maps maps(64);
    uint64_t cursor = 0;
    maps.map.mark({0, 20});
    (void)maps.map.take(20, 20, cursor);
    CHECK(maps.map.unacknowledged_blocks() == 0);
    maps.map.emitted({0, 12}, 5);
    maps.map.emitted({12, 8}, 6);
    CHECK(maps.map.unacknowledged_blocks() == 20);
    maps.map.acknowledge(5);
    CHECK(maps.map.unacknowledged_blocks() == 8);
    maps.map.recover();
    CHECK(maps.map.unacknowledged_blocks() == 0);
}

TEST_CASE("a block that is being read is not handed out again until it was emitted or given back") {
    Maps maps(64);
    uint64_t cursor = 0;
    maps.map.mark({3, 3});
    REQUIRE(maps.map.take(3, 3, cursor) == Runs{{3, 3}});
    maps.map.mark({3, 3});
    CHECK(maps.map.take(3, 3, cursor).empty());
    maps.map.emitted({3, 1}, 1);
    maps.map.give_back({4, 1});
    CHECK(maps.map.take(3, 3, cursor) == Runs{{3, 2}});
    CHECK(maps.dirty(5));
}

TEST_CASE("a record of a reading from before recover() clears nothing") {
    Maps maps(64);
    uint64_t cursor = 0;
    maps.map.mark({3, 1});
    (void)maps.map.take(1, 1, cursor);
    maps.map.recover();
    maps.map.emitted({3, 1}, 1);
    maps.map.acknowledge(1);
    CHECK(maps.map.todo_blocks() == 1);
}

TEST_CASE("a block dirtied again while in flight stays to do after the acknowledgement") {
    Maps maps(64);
    uint64_t cursor = 0;
    maps.map.mark({3, 2});
    (void)maps.map.take(2, 2, cursor);
    maps.map.emitted({3, 2}, 9);
    maps.map.mark({3, 1});
    maps.map.acknowledge(9);
    CHECK(maps.map.dirty_runs(10) == Runs{{3, 1}});
}

TEST_CASE("recover makes everything that was in flight a block to do") {
    Maps maps(70);
    maps.in_flight[0] = 6;
    maps.in_flight[1] = 1;
    DirtyMap map(maps.live, maps.todo, maps.in_flight, 70);
    CHECK(map.in_flight_blocks() == 3);
    map.recover();
    CHECK(map.in_flight_blocks() == 0);
    CHECK(map.dirty_runs(10) == Runs{{1, 2}, {64, 1}});
    map.acknowledge(1000);
    CHECK(map.todo_blocks() == 3);
}

TEST_CASE("dirty_runs joins the three maps and stops at its limit") {
    Maps maps(300);
    maps.live[0] = 1;
    maps.todo[0] = 2;
    maps.in_flight[0] = 4;
    maps.todo[4] = 1;
    const DirtyMap map(maps.live, maps.todo, maps.in_flight, 300);
    CHECK(map.dirty_runs(10) == Runs{{0, 3}, {256, 1}});
    CHECK(map.dirty_runs(1) == Runs{{0, 3}});
    CHECK(map.dirty_runs(0).empty());
}

// The model: each block has the number of its newest write, of the newest one that was read, and
// of the newest one that is stored. A block with a write that is not stored has a bit somewhere.
TEST_CASE("a block whose newest write is not stored is in one of the maps, whatever happens") {
    std::mt19937_64 random(test_seed());
    for (uint64_t round = 0; round < scaled(40, 2000); ++round) {
        const uint64_t blocks = 1 + random() % 300;
        Maps maps(blocks);
        struct Emission {
            uint64_t position;
            BlockRun run;
            std::vector<uint64_t> versions;
        };
        std::vector<uint64_t> written(blocks), stored(blocks);
        std::vector<Emission> unstored;
        std::vector<std::pair<BlockRun, std::vector<uint64_t>>> reading;
        uint64_t position = 0, cursor = 0;
        for (int step = 0; step < 300; ++step) {
            switch (random() % 8) {
                case 0:
                case 1: {
                    const uint64_t block = random() % blocks;
                    ++written[block];
                    maps.write(block);
                    break;
                }
                case 2:
                    maps.map.absorb_live();
                    break;
                case 3:
                    for (const BlockRun& run :
                         maps.map.take(random() % 20, 1 + random() % 20, cursor)) {
                        std::vector<uint64_t> versions;
                        for (uint64_t i = 0; i < run.count; ++i)
                            versions.push_back(written[run.first + i]);
                        reading.emplace_back(run, versions);
                    }
                    break;
                case 4:
                    if (!reading.empty()) {
                        const size_t i = random() % reading.size();
                        auto [run, versions] = reading[i];
                        reading.erase(reading.begin() + long(i));
                        if (random() % 4 == 0) {
                            maps.map.give_back(run);
                            break;
                        }
                        maps.map.emitted(run, ++position);
                        unstored.push_back({position, run, versions});
                    }
                    break;
                case 5:
                    if (!unstored.empty()) {
                        const uint64_t upto = unstored[random() % unstored.size()].position;
                        maps.map.acknowledge(upto);
                        while (!unstored.empty() && unstored.front().position <= upto) {
                            const auto& first = unstored.front();
                            for (uint64_t i = 0; i < first.run.count; ++i)
                                stored[first.run.first + i] = first.versions[i];
                            unstored.erase(unstored.begin());
                        }
                    }
                    break;
                case 6:
                    if (random() % 10 == 0) {
                        maps.map.recover();
                        reading.clear();
                        unstored.clear();
                    }
                    break;
                default:
                    maps.map.mark({random() % blocks, 1});
                    break;
            }
            const auto counted = [](const std::vector<uint64_t>& words) {
                uint64_t bits = 0;
                for (const uint64_t word : words) bits += uint64_t(std::popcount(word));
                return bits;
            };
            if (maps.map.todo_blocks() != counted(maps.todo) ||
                maps.map.in_flight_blocks() != counted(maps.in_flight)) {
                FAIL("round " << round << " step " << step << ": the counts are wrong");
            }
            for (uint64_t block = 0; block < blocks; ++block) {
                if (written[block] != stored[block] && !maps.dirty(block)) {
                    FAIL("round " << round << " step " << step << ": block " << block
                                  << " is stored at " << stored[block] << " of " << written[block]
                                  << " and in no map");
                }
            }
        }
    }
}

namespace {

// Memory of which only the two windows opened last can be touched; a touch elsewhere ends the test.
class Guarded {
  public:
    explicit Guarded(uint64_t words) : words_(words) {
        memory_ = static_cast<uint64_t*>(::mmap(
            nullptr, words * 8, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
        REQUIRE(memory_ != MAP_FAILED);
    }
    Guarded(const Guarded&) = delete;
    Guarded& operator=(const Guarded&) = delete;
    ~Guarded() { ::munmap(memory_, words_ * 8); }

    std::span<uint64_t> words() const { return {memory_, words_}; }
    uint64_t opened() const { return opened_; }
    void open(uint64_t window) {
        if (std::find(open_.begin(), open_.end(), window) != open_.end()) return;
        ++opened_;
        if (open_.size() == 2) {
            protect(open_.front(), PROT_NONE);
            open_.pop_front();
        }
        protect(window, PROT_READ | PROT_WRITE);
        open_.push_back(window);
    }

  private:
    void protect(uint64_t window, int how) {
        const uint64_t from = window * kWindowWords;
        const uint64_t count = std::min(kWindowWords, words_ - from);
        REQUIRE(::mprotect(memory_ + from, count * 8, how) == 0);
    }
    uint64_t words_;
    uint64_t* memory_;
    uint64_t opened_ = 0;
    std::deque<uint64_t> open_;
};

}  // namespace

TEST_CASE(
    "of a bitmap larger than its windows only opened ones are touched, and empty ones never") {
    constexpr uint64_t kWindows = 300;
    constexpr uint64_t kBlocks = (kWindows - 1) * kWindowWords * 64 + 77;
    constexpr uint64_t kWindowBlocks = kWindowWords * 64;
    const uint64_t words = (kBlocks + 63) / 64;
    Guarded live(words), todo(words), in_flight(words);
    Guarded* const all[] = {&live, &todo, &in_flight};
    DirtyMap map(live.words(), todo.words(), in_flight.words(), kBlocks,
                 [&](Bitmap bitmap, uint64_t window) { all[size_t(bitmap)]->open(window); });
    // A write in the first, a middle and the last window.
    for (const uint64_t block : {uint64_t(5), 150 * kWindowBlocks, kBlocks - 1}) {
        live.open(block / kWindowBlocks);
        live.words()[block / 64] |= uint64_t{1} << (block % 64);
    }
    const uint64_t opened = todo.opened(), opened_in_flight = in_flight.opened();
    REQUIRE(map.absorb_live() == 3);
    map.mark({kWindowBlocks - 2, 4});  // across two windows
    uint64_t cursor = 151 * kWindowBlocks;
    REQUIRE(map.take(100, 16, cursor) ==
            Runs{{kBlocks - 1, 1}, {5, 1}, {kWindowBlocks - 2, 4}, {150 * kWindowBlocks, 1}});
    CHECK(map.todo_blocks() == 0);
    CHECK(map.in_flight_blocks() == 7);
    map.emitted({5, 1}, 1);
    map.emitted({kWindowBlocks - 2, 4}, 2);
    map.acknowledge(2);
    map.give_back({150 * kWindowBlocks, 1});
    map.recover();
    CHECK(map.dirty_runs(10) == Runs{{150 * kWindowBlocks, 1}, {kBlocks - 1, 1}});
    // Four windows held something, each opened a few times; 300 of each were not.
    CHECK(todo.opened() - opened < 30);
    CHECK(in_flight.opened() - opened_in_flight < 30);
    map.mark_all();
    CHECK(map.todo_blocks() == kBlocks);
    CHECK(map.live_blocks() == 0);
}
