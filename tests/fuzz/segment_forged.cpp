// SPDX-License-Identifier: Apache-2.0
// As segment_reader, but first every magic, chain and checksum that the input's own lengths lead
// to is put right: without that no input would get past the header.
#include "tests/forge_segment.h"
#include "tests/fuzz/read_segment.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const auto* begin = reinterpret_cast<const std::byte*>(data);
    herald::Bytes bytes(begin, begin + size);
    herald::test::forge_segment(bytes);
    herald::fuzz::read_segment(bytes);
    return 0;
}
