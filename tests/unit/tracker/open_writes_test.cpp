// SPDX-License-Identifier: Apache-2.0
#include "user/tracker/open_writes.h"

#include <utility>

#include "tests/catch.hpp"

using namespace herald::tracker;

namespace {

__u64 word(uint64_t issue, uint64_t first, uint64_t count) {
    return issue << HERALD_EBPF_EXTENT_ISSUE_SHIFT | count << HERALD_EBPF_EXTENT_BITS | first;
}

}  // namespace

TEST_CASE("open lists the writes that are open, with their blocks") {
    std::vector<herald_open_write_abi> slots(4);
    slots[1] = {77, word(3, 5, 2), 8};
    slots[2] = {78, word(9, 5, 0), 0};
    slots[3] = {79, word(15, (1u << 30) - 2, 1), 0};
    const auto open = OpenWrites(slots).open();
    REQUIRE(open.size() == 2);
    CHECK(open[0].slot == 1);
    CHECK(open[0].run == BlockRun{5, 2});
    CHECK(open[0].part == 8);
    CHECK(open[1].run == BlockRun{(1u << 30) - 2, 1});
    CHECK(OpenWrites(slots).count() == 2);
}

TEST_CASE("forget closes the write that was looked at and keeps the number of its issue") {
    std::vector<herald_open_write_abi> slots(1);
    slots[0] = {77, word(3, 5, 2), 0};
    OpenWrites writes(slots);
    writes.forget(writes.open()[0]);
    CHECK(slots[0].extent == word(3, 0, 0));
    CHECK(slots[0].request == 77);
}

TEST_CASE("forget leaves a request that was issued again for the same blocks") {
    std::vector<herald_open_write_abi> slots(1);
    slots[0] = {77, word(3, 5, 2), 0};
    OpenWrites writes(slots);
    const auto seen = writes.open()[0];
    slots[0].extent = word(4, 5, 2);
    writes.forget(seen);
    CHECK(writes.count() == 1);
}

TEST_CASE("a write over all of the largest disk is open to its end") {
    // 2^30 blocks are one more than the count holds: the largest count means the rest of the disk.
    std::vector<herald_open_write_abi> slots(2);
    slots[0] = {77, word(3, 0, HERALD_EBPF_EXTENT_MASK), 0};
    slots[1] = {78, word(3, 1, HERALD_EBPF_EXTENT_MASK), 0};
    const auto open = OpenWrites(slots).open();
    REQUIRE(open.size() == 2);
    CHECK(open[0].run == BlockRun{0, 1u << 30});
    CHECK(open[1].run == BlockRun{1, (1u << 30) - 1});
}

TEST_CASE("release_closed frees the slots of closed writes only") {
    std::vector<herald_open_write_abi> slots(3);
    slots[0] = {77, word(3, 5, 2), 0};
    slots[1] = {78, word(3, 0, 0), 0};
    OpenWrites(slots).release_closed();
    CHECK(slots[0].request == 77);
    CHECK(slots[1].request == HERALD_EBPF_REQUEST_RELEASED);
    CHECK(slots[1].extent == word(3, 0, 0));
    // Where a search ends stays where it ends.
    CHECK(slots[2].request == 0);
}

namespace {

// What the program does with a slot that it found: true when it takes the write as remembered.
bool open_slot(herald_open_write_abi& slot, uint64_t name, uint64_t opened) {
    const uint64_t replaced = std::exchange(slot.extent, opened);
    const uint64_t place = (uint64_t{1} << HERALD_EBPF_EXTENT_ISSUE_SHIFT) - 1;
    return (replaced & place) != HERALD_EBPF_EXTENT_RELEASING && slot.request == name;
}

}  // namespace

TEST_CASE("a write that opens its slot while it is released keeps it, or knows that it has none") {
    // After each step of the release, as the program looked the slot up before or after it.
    for (int looked_up = 0; looked_up <= 3; ++looked_up) {
        for (int opens = looked_up; opens <= 3; ++opens) {
            std::vector<herald_open_write_abi> slots(1);
            slots[0] = {77, word(3, 0, 0), 0};
            OpenWrites writes(slots);
            bool found = false, remembered = false;
            int step = 0;
            const auto program = [&](size_t) {
                if (step == looked_up) {
                    if (slots[0].request == HERALD_EBPF_REQUEST_RELEASED) slots[0].request = 77;
                    found = slots[0].request == 77;
                }
                if (step == opens && found) {
                    remembered = open_slot(slots[0], 77, word(4, 5, 2));
                }
                ++step;
            };
            writes.release_closed(program);
            while (step <= opens) program(0);
            INFO("looked up after step " << looked_up << ", opened after step " << opens);
            CHECK(found);
            CHECK(writes.count() == 1);
            if (remembered) {
                // Then its completion finds it, and nobody else claims the slot meanwhile.
                CHECK(slots[0].request == 77);
            }
            // A release that had not begun takes nothing from an open write.
            if (opens == 0) CHECK(remembered);
        }
    }
}
