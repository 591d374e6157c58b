// SPDX-License-Identifier: Apache-2.0
// Buffer: bytes that are about to be overwritten, so nobody fills them with zeroes first.
// Promise: grows only; what a shorter need() handed out before is overwritten by the next.
// Owns its memory. Bounds are the caller's: it is asked only for lengths already checked.
#pragma once

#include <memory>

#include "user/base/bytes.h"

namespace herald::hrl {

class Buffer {
  public:
    // Room for `size` bytes; what was in it before is gone when it had to grow.
    ByteSpan need(size_t size) {
        if (size > capacity_) {
            bytes_ = std::make_unique_for_overwrite<std::byte[]>(size);
            capacity_ = size;
        }
        return {bytes_.get(), size};
    }
    std::byte* data() { return bytes_.get(); }

  private:
    std::unique_ptr<std::byte[]> bytes_;
    size_t capacity_ = 0;
};

}  // namespace herald::hrl
