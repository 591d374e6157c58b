// SPDX-License-Identifier: Apache-2.0
// Any bytes at all, read as a segment: no read out of bounds, no allocation beyond the limits,
// no endless loop, and nothing verified that does not read the same twice.
#include "tests/fuzz/read_segment.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    herald::fuzz::read_segment({reinterpret_cast<const std::byte*>(data), size});
    return 0;
}
