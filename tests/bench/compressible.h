// SPDX-License-Identifier: Apache-2.0
// Data that LZ4 packs at about 2 : 1: each 4 KiB page is half random bytes, half repeats of them.
#pragma once

#include <random>

#include "user/base/bytes.h"

namespace herald::bench {

inline Bytes compressible(size_t bytes, uint64_t seed) {
    Bytes data(bytes);
    std::mt19937_64 random(seed);
    constexpr size_t kRun = 64;
    for (size_t at = 0; at + 2 * kRun <= bytes; at += 2 * kRun) {
        for (size_t i = 0; i < kRun; i += 8) store_le<uint64_t>(&data[at + i], random());
        std::memcpy(&data[at + kRun], &data[at], kRun);
    }
    return data;
}

}  // namespace herald::bench
