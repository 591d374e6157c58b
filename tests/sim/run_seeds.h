// SPDX-License-Identifier: Apache-2.0
// Runs one World for each of many seeds. HERALD_SEED is the first of them, HERALD_TIER their
// number, HERALD_PART ("2/4") which of equal ranges of them; a failure prints the seed that brings
// it back at once.
// Callers: a test case, once.
#pragma once

#include <optional>
#include <string>

#include "tests/sim/world.h"

namespace herald::sim {

struct SeedRange {
    uint64_t first = 0;
    uint64_t count = 0;
};

// The I-th of N ranges, each seed in one of them; nothing when `part` is not I/N with I from 1 to
// N.
std::optional<SeedRange> range_of_part(SeedRange all, const std::string& part);

// Of all histories; fails the test case when a promise does not hold.
Figures run_seeds(bool ordered);

}  // namespace herald::sim
