// SPDX-License-Identifier: Apache-2.0
// As segment_reader, but first every magic, chain and checksum that the input's own lengths lead
// to is put right: without that no input would get past the header.
#include <algorithm>

#include "tests/fuzz/read_segment.h"
#include "user/base/digest.h"
#include "user/hrl/layout.h"

namespace herald::fuzz {

namespace {

using namespace herald::hrl;

void seal(Bytes& bytes, size_t from, size_t checksum_at) {
    store_le(bytes.data() + checksum_at,
             xxh3_64(ByteView(bytes).subspan(from, checksum_at - from)));
}

// Walks block by block as far as the lengths in the input make sense; returns where it ended.
size_t seal_blocks(Bytes& bytes, size_t end, uint64_t& chain) {
    size_t at = sizeof(SegmentHeaderDisk);
    while (end - at >= block_file_bytes(0)) {
        const auto disk = load_disk<BlockHeaderDisk>(bytes.data() + at);
        const uint64_t size = block_file_bytes(disk.stored_bytes);
        if (size > end - at) break;
        store_le(bytes.data() + at, kBlockMagic);
        store_le(bytes.data() + at + offsetof(BlockHeaderDisk, chain), chain);
        const size_t checksum_at = at + size - kChecksumBytes;
        seal(bytes, at, checksum_at);
        chain = load_le<uint64_t>(bytes.data() + checksum_at);
        at += size;
    }
    return at;
}

void seal_all(Bytes& bytes) {
    if (bytes.size() < sizeof(SegmentHeaderDisk)) return;
    std::copy(kSegmentMagic.begin(), kSegmentMagic.end(), reinterpret_cast<uint8_t*>(bytes.data()));
    store_le(bytes.data() + offsetof(SegmentHeaderDisk, version), kVersion);
    seal(bytes, 0, offsetof(SegmentHeaderDisk, checksum));
    uint64_t chain = load_le<uint64_t>(bytes.data() + offsetof(SegmentHeaderDisk, checksum));

    const size_t footer_room = sizeof(SegmentHeaderDisk) + sizeof(FooterDisk);
    const size_t footer_at = bytes.size() - std::min(bytes.size(), sizeof(FooterDisk));
    uint32_t blocks = 0;
    size_t index_at = bytes.size();
    if (bytes.size() >= footer_room) {
        blocks = load_disk<FooterDisk>(bytes.data() + footer_at).block_count;
        const uint64_t index_bytes = index_file_bytes(blocks);
        if (index_bytes <= footer_at - sizeof(SegmentHeaderDisk)) {
            index_at = footer_at - index_bytes;
        }
    }
    seal_blocks(bytes, index_at, chain);
    if (index_at == bytes.size()) return;
    store_le(bytes.data() + index_at, kIndexMagic);
    store_le(bytes.data() + index_at + offsetof(IndexHeaderDisk, entry_count), blocks);
    store_le(bytes.data() + index_at + offsetof(IndexHeaderDisk, chain), chain);
    seal(bytes, index_at, footer_at - kChecksumBytes);
    store_le(bytes.data() + footer_at, kFooterMagic);
    store_le(bytes.data() + footer_at + offsetof(FooterDisk, index_offset), uint64_t(index_at));
    store_le(bytes.data() + footer_at + offsetof(FooterDisk, chain), chain);
    store_le(bytes.data() + footer_at + offsetof(FooterDisk, file_bytes), uint64_t(bytes.size()));
    seal(bytes, footer_at, footer_at + offsetof(FooterDisk, checksum));
}

}  // namespace

}  // namespace herald::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const auto* begin = reinterpret_cast<const std::byte*>(data);
    herald::Bytes bytes(begin, begin + size);
    herald::fuzz::seal_all(bytes);
    herald::fuzz::read_segment(bytes);
    return 0;
}
