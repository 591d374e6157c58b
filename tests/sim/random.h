// SPDX-License-Identifier: Apache-2.0
// Random: every choice of a simulation comes from one seed.
#pragma once

#include <cstdint>
#include <random>

#include "user/base/uuid.h"

namespace herald::sim {

class Random {
  public:
    explicit Random(uint64_t seed) : generator_(seed) {}
    // Uniform in [0, n); n > 0. Not std::uniform_*: their sequences differ between libraries.
    uint64_t below(uint64_t n) { return generator_() % n; }
    bool chance(double probability) { return real() < probability; }
    double real() { return double(generator_() >> 11) * 0x1.0p-53; }
    Uuid uuid() {
        Uuid id;
        for (std::byte& b : id.bytes) b = std::byte(generator_());
        return id;
    }

  private:
    std::mt19937_64 generator_;
};

}  // namespace herald::sim
