// SPDX-License-Identifier: Apache-2.0
// forge_segment puts every magic, chain and checksum of a damaged file right that needs no key:
// what somebody does who wants to deceive a reader, and what a fuzzer needs to get past the header.
#pragma once

#include <algorithm>

#include "user/base/digest.h"
#include "user/hrl/layout.h"

namespace herald::test {

inline void forge_checksum(Bytes& bytes, size_t from, size_t checksum_at) {
    store_le(bytes.data() + checksum_at,
             xxh3_64(ByteView(bytes).subspan(from, checksum_at - from)));
}

// Walks block by block as far as the lengths in the file make sense.
inline void forge_blocks(Bytes& bytes, size_t end, uint64_t& chain) {
    using namespace herald::hrl;
    size_t at = sizeof(SegmentHeaderDisk);
    while (end - at >= block_file_bytes(0)) {
        const auto disk = load_disk<BlockHeaderDisk>(bytes.data() + at);
        const uint64_t size = block_file_bytes(disk.stored_bytes);
        if (size > end - at) break;
        store_le(bytes.data() + at, kBlockMagic);
        store_le(bytes.data() + at + offsetof(BlockHeaderDisk, chain), chain);
        const size_t checksum_at = at + size - kChecksumBytes;
        forge_checksum(bytes, at, checksum_at);
        chain = load_le<uint64_t>(bytes.data() + checksum_at);
        at += size;
    }
}

// The tail is where a footer at the end says that it is.
inline void forge_segment(Bytes& bytes) {
    using namespace herald::hrl;
    if (bytes.size() < sizeof(SegmentHeaderDisk)) return;
    std::copy(kSegmentMagic.begin(), kSegmentMagic.end(), reinterpret_cast<uint8_t*>(bytes.data()));
    store_le(bytes.data() + offsetof(SegmentHeaderDisk, version), kVersion);
    forge_checksum(bytes, 0, offsetof(SegmentHeaderDisk, checksum));
    uint64_t chain = load_le<uint64_t>(bytes.data() + offsetof(SegmentHeaderDisk, checksum));
    const auto header = load_disk<SegmentHeaderDisk>(bytes.data());
    const size_t tag_bytes = header.sealed_by != 0 ? kTailTagBytes : 0;

    const size_t behind = tag_bytes + sizeof(FooterDisk);
    uint32_t blocks = 0;
    size_t index_at = bytes.size();
    size_t index_bytes = 0;
    if (bytes.size() >= sizeof(SegmentHeaderDisk) + behind) {
        const size_t footer_at = bytes.size() - sizeof(FooterDisk);
        blocks = load_disk<FooterDisk>(bytes.data() + footer_at).block_count;
        index_bytes = index_file_bytes(blocks);
        if (index_bytes <= bytes.size() - behind - sizeof(SegmentHeaderDisk)) {
            index_at = bytes.size() - behind - index_bytes;
        }
    }
    forge_blocks(bytes, index_at, chain);
    if (index_at == bytes.size()) return;
    store_le(bytes.data() + index_at, kIndexMagic);
    store_le(bytes.data() + index_at + offsetof(IndexHeaderDisk, entry_count), blocks);
    store_le(bytes.data() + index_at + offsetof(IndexHeaderDisk, chain), chain);
    forge_checksum(bytes, index_at, index_at + index_bytes - kChecksumBytes);
    const size_t footer_at = bytes.size() - sizeof(FooterDisk);
    if (tag_bytes != 0) forge_checksum(bytes, footer_at - tag_bytes, footer_at - kChecksumBytes);
    std::byte* const footer = bytes.data() + footer_at;
    store_le(footer, kFooterMagic);
    store_le(footer + offsetof(FooterDisk, index_offset), uint64_t(index_at));
    store_le(footer + offsetof(FooterDisk, chain), chain);
    store_le(footer + offsetof(FooterDisk, file_bytes), uint64_t(bytes.size()));
    forge_checksum(bytes, footer_at, footer_at + offsetof(FooterDisk, checksum));
}

}  // namespace herald::test
