// SPDX-License-Identifier: Apache-2.0
#include "user/hrl/lz4_block.h"

#include <lz4.h>

namespace herald::hrl {

namespace {

// Behind what the four bits of a token say when all are set.
size_t long_length(ByteView block, size_t& at) {
    size_t length = 15;
    while (at < block.size()) {
        const auto more = size_t(block[at++]);
        length += more;
        if (more != 255) break;
    }
    return length;
}

// Literals of the last sequence of a block that the library took; all are enough without a match.
bool has_last_literals(ByteView block) {
    bool first = true;
    for (size_t at = 0; at < block.size(); first = false) {
        const auto token = unsigned(block[at++]);
        size_t literals = token >> 4;
        if (literals == 15) literals = long_length(block, at);
        if (at >= block.size() || literals >= block.size() - at) {
            return first || literals >= kLz4LastLiterals;
        }
        at += literals + sizeof(uint16_t);
        if ((token & 15) == 15) long_length(block, at);
    }
    return false;
}

// The library sees to the rules about the end, but for one case: a match without a long length far
// enough from the end is copied whole, and may then reach up to it. What looks like one, by the
// offset that would be in front of the last token and by what was copied, is walked from the
// beginning; hardly any other block is.
bool ends_in_literals(ByteView block, ByteView raw) {
    constexpr size_t kMatchBytesMin = 4;
    for (size_t last = 0; last < kLz4LastLiterals && last + 3 <= block.size(); ++last) {
        const std::byte* const token = block.data() + block.size() - 1 - last;
        if (size_t(*token) >> 4 != last) continue;
        const size_t offset = load_le<uint16_t>(token - sizeof(uint16_t));
        // Zero is no match, and equal to itself: blocks whose records end in zeroes look like it.
        if (offset == 0 || raw.size() < last + kMatchBytesMin + offset) continue;
        const std::byte* const copied = raw.data() + raw.size() - last - kMatchBytesMin;
        if (std::memcmp(copied, copied - offset, kMatchBytesMin) == 0) {
            return has_last_literals(block);
        }
    }
    return true;
}

}  // namespace

bool decompress_lz4(ByteView block, ByteSpan raw) {
    const int size = LZ4_decompress_safe(reinterpret_cast<const char*>(block.data()),
                                         reinterpret_cast<char*>(raw.data()), int(block.size()),
                                         int(raw.size()));
    return size >= 0 && size_t(size) == raw.size() && ends_in_literals(block, raw);
}

}  // namespace herald::hrl
