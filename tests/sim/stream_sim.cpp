// SPDX-License-Identifier: Apache-2.0
// Machines whose tracker does not see the order of writes.
#include "tests/catch.hpp"
#include "tests/sim/run_seeds.h"

using herald::sim::range_of_part;

TEST_CASE("the parts of a run hold each seed once") {
    for (const uint64_t count : {1'000'000, 400'000, 10'001, 3}) {
        uint64_t next = 77;
        for (int part = 1; part <= 4; ++part) {
            const auto range = range_of_part({77, count}, std::to_string(part) + "/4");
            REQUIRE(range);
            CHECK(range->first == next);
            next += range->count;
        }
        CHECK(next == 77 + count);
    }
    for (const char* wrong : {"", "0/4", "5/4", "1/0", "1", "1/4x", "-1/4"}) {
        CHECK_FALSE(range_of_part({1, 100}, wrong));
    }
}

TEST_CASE("the promises hold in every simulated history") { herald::sim::run_seeds(false); }
