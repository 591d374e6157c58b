// SPDX-License-Identifier: Apache-2.0
// Machines whose tracker does not see the order of writes.
#include "tests/catch.hpp"
#include "tests/sim/run_seeds.h"

TEST_CASE("the promises hold in every simulated history") { herald::sim::run_seeds(false); }
