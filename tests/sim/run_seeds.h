// SPDX-License-Identifier: Apache-2.0
// Runs one World for each of many seeds. HERALD_SEED is the first of them, HERALD_TIER their
// number; a failure prints the seed that brings it back at once.
// Callers: a test case, once.
#pragma once

#include "tests/sim/world.h"

namespace herald::sim {

// Of all histories; fails the test case when a promise does not hold.
Figures run_seeds(bool ordered);

}  // namespace herald::sim
