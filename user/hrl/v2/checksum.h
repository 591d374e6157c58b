// SPDX-License-Identifier: Apache-2.0
// The checksum of the format: one's complement of the 32-bit sum of all bytes.
// Promise: finds one changed byte. It finds neither swapped bytes nor swapped records.
#pragma once

#include "user/base/bytes.h"

namespace herald::hrl::v2 {

class Checksum {
  public:
    void add(ByteView bytes) {
        for (const std::byte b : bytes) sum_ += uint32_t(b);
    }
    uint32_t value() const { return ~sum_; }

  private:
    uint32_t sum_ = 0;
};

inline uint32_t checksum_of(ByteView bytes) {
    Checksum checksum;
    checksum.add(bytes);
    return checksum.value();
}

// Of a struct whose own checksum, the four bytes at `field`, is left out.
inline uint32_t checksum_around(ByteView bytes, size_t field) {
    Checksum checksum;
    checksum.add(bytes.first(field));
    checksum.add(bytes.subspan(field + sizeof(uint32_t)));
    return checksum.value();
}

}  // namespace herald::hrl::v2
