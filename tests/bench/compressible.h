// SPDX-License-Identifier: Apache-2.0
// Data that LZ4 packs at 2.00 : 1, in blocks of 256 KiB as in those of 1 MiB that the records of an
// initial sync make: of each 128 bytes the first 59 are random, the others repeat them. Packed they
// are 64: a token, 59 literals, a distance of two bytes, and one more byte for each length.
#pragma once

#include <random>

#include "user/base/bytes.h"

namespace herald::bench {

inline Bytes compressible(size_t bytes, uint64_t seed) {
    Bytes data(bytes);
    std::mt19937_64 random(seed);
    constexpr size_t kPeriod = 128;
    constexpr size_t kRandom = 59;
    for (size_t at = 0; at + kPeriod <= bytes; at += kPeriod) {
        for (size_t i = 0; i < kPeriod / 2; i += 8) store_le<uint64_t>(&data[at + i], random());
        for (size_t i = kRandom; i < kPeriod; ++i) data[at + i] = data[at + i - kRandom];
    }
    return data;
}

}  // namespace herald::bench
