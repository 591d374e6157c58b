// SPDX-License-Identifier: Apache-2.0
// Raw LZ4 blocks. The input is the raw size in 4 bytes, little-endian, then the block: decompressed
// as the reader does it and by the rules of docs/formats/hrl.md, which must agree; then
// inside a forged segment, where a reader must stay within bounds.
#include "tests/forge_segment.h"
#include "tests/fuzz/read_segment.h"
#include "user/hrl/lz4_block.h"

namespace herald::fuzz {

namespace {

using namespace herald::hrl;

// A block may hold a record of 1 MiB; a sixteenth of it is tried sixteen times as often.
constexpr uint32_t kRawBytesMax = HERALD_RECORD_DATA_BYTES_MAX / 16;
constexpr size_t kMatchMargin = 12;

enum class Verdict { good, refused, zero_offset };

// A length whose first 15 are in the token. False: it is cut.
bool read_length(ByteView& block, size_t& length) {
    if (length < 15) return true;
    for (;;) {
        if (block.empty()) return false;
        const auto more = size_t(block[0]);
        block = block.subspan(1);
        length += more;
        if (more != 255) return true;
    }
}

// As the specification says, byte by byte; for nothing but comparison.
Verdict decompress(ByteView block, size_t raw_bytes, Bytes& out) {
    for (;;) {
        if (block.empty()) return Verdict::refused;
        const auto token = unsigned(block[0]);
        block = block.subspan(1);
        size_t literals = token >> 4;
        if (!read_length(block, literals) || literals > block.size() ||
            literals > raw_bytes - out.size()) {
            return Verdict::refused;
        }
        out.append(block.first(literals));
        block = block.subspan(literals);
        if (block.empty()) return out.size() == raw_bytes ? Verdict::good : Verdict::refused;
        if (block.size() < 2) return Verdict::refused;
        const size_t offset = load_le<uint16_t>(block.data());
        block = block.subspan(2);
        size_t match = token & 15;
        if (!read_length(block, match)) return Verdict::refused;
        match += 4;
        if (offset == 0) return Verdict::zero_offset;
        if (offset > out.size() || out.size() + kMatchMargin > raw_bytes ||
            match + kLz4LastLiterals > raw_bytes - out.size()) {
            return Verdict::refused;
        }
        for (; match > 0; --match) out.push_back(out[out.size() - offset]);
    }
}

// One block of one record, which claims to hold the stream.
Bytes segment_around(ByteView block, uint32_t raw_bytes) {
    SegmentHeaderDisk header{};
    header.header_bytes = sizeof header;
    header.block_bytes = HERALD_HRL_BLOCK_BYTES_MAX;
    header.record_order = 1;
    header.first_position = 1;
    BlockHeaderDisk disk{};
    disk.first_position = 1;
    disk.record_count = 1;
    disk.raw_bytes = raw_bytes;
    disk.stored_bytes = uint32_t(block.size());
    disk.codec = uint8_t(Codec::lz4);
    Bytes bytes;
    bytes.append(disk_bytes_of(header));
    bytes.append(disk_bytes_of(disk));
    bytes.append(block);
    bytes.resize(bytes.size() + kChecksumBytes);
    test::forge_segment(bytes);
    return bytes;
}

}  // namespace

}  // namespace herald::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace herald;
    using namespace herald::fuzz;
    if (size < 4) return 0;
    const ByteView input = std::as_bytes(std::span(data, size));
    const uint32_t raw_bytes = load_le<uint32_t>(input.data());
    const ByteView block = input.subspan(4);
    // A file cannot say 0: its stored bytes are fewer than its raw ones.
    if (raw_bytes == 0 || raw_bytes > kRawBytesMax || block.size() > kRawBytesMax) return 0;

    Bytes ours;
    const Verdict verdict = decompress(block, raw_bytes, ours);
    // Of exactly this size, so that a sanitizer sees a byte that is written behind it.
    const auto theirs = std::make_unique<std::byte[]>(raw_bytes);
    const bool taken = decompress_lz4(block, {theirs.get(), raw_bytes});
    if (verdict != Verdict::zero_offset) {
        HERALD_ASSERT(taken == (verdict == Verdict::good));
        HERALD_ASSERT(!taken || std::memcmp(theirs.get(), ours.data(), raw_bytes) == 0);
    }
    read_segment(segment_around(block, raw_bytes));
    return 0;
}
