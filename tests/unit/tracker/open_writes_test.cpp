// SPDX-License-Identifier: Apache-2.0
#include "user/tracker/open_writes.h"

#include "tests/catch.hpp"

using namespace herald::tracker;

namespace {

__u64 word(uint64_t issue, uint64_t first, uint64_t count) {
    return issue << HERALD_EBPF_EXTENT_ISSUE_SHIFT | count << HERALD_EBPF_EXTENT_BITS | first;
}

}  // namespace

TEST_CASE("open lists the writes that are open, with their blocks") {
    std::vector<herald_open_write_abi> slots(4);
    slots[1] = {77, word(3, 5, 2)};
    slots[2] = {78, word(9, 5, 0)};
    slots[3] = {79, word(15, (1u << 30) - 2, 1)};
    const auto open = OpenWrites(slots).open();
    REQUIRE(open.size() == 2);
    CHECK(open[0].slot == 1);
    CHECK(open[0].run == BlockRun{5, 2});
    CHECK(open[1].run == BlockRun{(1u << 30) - 2, 1});
    CHECK(OpenWrites(slots).count() == 2);
}

TEST_CASE("forget closes the write that was looked at and keeps the number of its issue") {
    std::vector<herald_open_write_abi> slots(1);
    slots[0] = {77, word(3, 5, 2)};
    OpenWrites writes(slots);
    writes.forget(writes.open()[0]);
    CHECK(slots[0].extent == word(3, 0, 0));
    CHECK(slots[0].request == 77);
}

TEST_CASE("forget leaves a request that was issued again for the same blocks") {
    std::vector<herald_open_write_abi> slots(1);
    slots[0] = {77, word(3, 5, 2)};
    OpenWrites writes(slots);
    const auto seen = writes.open()[0];
    slots[0].extent = word(4, 5, 2);
    writes.forget(seen);
    CHECK(writes.count() == 1);
}

TEST_CASE("release_closed frees the slots of closed writes only") {
    std::vector<herald_open_write_abi> slots(2);
    slots[0] = {77, word(3, 5, 2)};
    slots[1] = {78, word(3, 0, 0)};
    OpenWrites(slots).release_closed();
    CHECK(slots[0].request == 77);
    CHECK(slots[1].request == 0);
}
