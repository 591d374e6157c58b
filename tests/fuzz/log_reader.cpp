// SPDX-License-Identifier: Apache-2.0
// Any bytes at all, read as a Hyper-V Replica Log: no read out of bounds, no allocation beyond
// the limits, no endless loop.
#include "tests/fuzz/read_log.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    herald::fuzz::read_log({reinterpret_cast<const std::byte*>(data), size});
    return 0;
}
