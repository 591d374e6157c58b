// SPDX-License-Identifier: Apache-2.0
// Any bytes, read as the payload of a marker record (the first byte says which): what decodes
// must encode to the same bytes again, so no byte is ignored.
#include <algorithm>

#include "user/hrl/record.h"

namespace {

using namespace herald;
using namespace herald::hrl;

template <class T>
void check(ByteView payload, Result<T> (*decode)(ByteView), Bytes (*encode)(const T&)) {
    auto value = decode(payload);
    if (!value) return;
    const Bytes again = encode(*value);
    HERALD_ASSERT(std::ranges::equal(again, payload));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size == 0) return 0;
    const ByteView payload{reinterpret_cast<const std::byte*>(data) + 1, size - 1};
    switch (data[0] % 5) {
        case 0:
            check(payload, decode_tag, encode_tag);
            break;
        case 1:
            check(payload, decode_scan_begin, encode_scan_begin);
            break;
        case 2:
            check(payload, decode_scan_end, encode_scan_end);
            break;
        case 3:
            check(payload, decode_mode_change, encode_mode_change);
            break;
        default:
            check(payload, decode_activation, encode_activation);
            break;
    }
    return 0;
}
