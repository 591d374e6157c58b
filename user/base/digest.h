// SPDX-License-Identifier: Apache-2.0
// Digests. XXH3 finds corruption (nobody is trying to deceive); SHA-256 names things and proves.
#pragma once

#include <array>
#include <compare>
#include <string>

#include "user/base/bytes.h"

namespace herald {

// XXH3-128 of some bytes, in canonical (big-endian) byte order. All zero means "not known".
struct Digest128 {
    std::array<std::byte, 16> bytes{};
    auto operator<=>(const Digest128&) const = default;
    bool is_unknown() const { return *this == Digest128{}; }
};

uint64_t xxh3_64(ByteView bytes);
Digest128 xxh3_128(ByteView bytes);
std::array<std::byte, 32> sha256(ByteView bytes);

std::string to_hex(ByteView bytes);

}  // namespace herald
