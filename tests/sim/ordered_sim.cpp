// SPDX-License-Identifier: Apache-2.0
// Machines whose writes come from the driver dm_cbt in their order.
#include <cstdio>

#include "tests/catch.hpp"
#include "tests/sim/run_seeds.h"

TEST_CASE("the promises hold in every simulated history of an ordered stream") {
    const auto sum = herald::sim::run_seeds(true);
    std::printf("%llu boundaries compared; modes sank to extents %llu and to map %llu times\n",
                (unsigned long long)sum.boundaries, (unsigned long long)sum.sank_to_extents,
                (unsigned long long)sum.sank_to_map);
    CHECK(sum.boundaries > 0);
    CHECK(sum.sank_to_extents > 0);
    CHECK(sum.sank_to_map > 0);
}
