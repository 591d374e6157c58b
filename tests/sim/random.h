// SPDX-License-Identifier: Apache-2.0
// Random is the only source of chance in a simulation: the same seed gives the same run.
// Callers: one thread.
#pragma once

#include <cstdint>
#include <cstring>

#include "user/base/uuid.h"

namespace herald::sim {

class Random {
  public:
    explicit Random(uint64_t seed) : state_(seed) {}

    // SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
    uint64_t next() {
        uint64_t z = (state_ += 0x9e3779b97f4a7c15ull);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
        return z ^ (z >> 31);
    }
    uint64_t below(uint64_t bound) { return next() % bound; }
    double uniform() { return double(next() >> 11) * 0x1p-53; }
    bool chance(double probability) { return uniform() < probability; }
    Uuid id() {
        Uuid id;
        const uint64_t halves[] = {next(), next()};
        std::memcpy(id.bytes.data(), halves, sizeof halves);
        return id;
    }

  private:
    uint64_t state_;
};

}  // namespace herald::sim
