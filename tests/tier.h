// SPDX-License-Identifier: Apache-2.0
// How much a random test does, and from which seed: HERALD_TIER and HERALD_SEED.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <string>

namespace herald::test {

inline uint64_t seed_from_environment() {
    const char* text = std::getenv("HERALD_SEED");
    return text ? std::strtoull(text, nullptr, 10) : 20240229;
}

// 1 in ./check, 4 in CI, 20 in nightly runs.
inline size_t tier_scale() {
    const char* text = std::getenv("HERALD_TIER");
    const std::string tier = text ? text : "";
    return tier == "nightly" ? 20 : tier == "ci" ? 4 : 1;
}

}  // namespace herald::test
