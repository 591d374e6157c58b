// SPDX-License-Identifier: Apache-2.0
// The bytes of a v3 segment: its structs as they lie in the file, little-endian and packed.
// Promise: sizes and offsets are those of docs/formats/hrl.md, checked here at compile time.
// Callers: user/hrl, tools that show a file's inside, and the tests that forge damaged files.
// Layout: docs/formats/hrl.md
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "herald/limits.h"
#include "user/base/bytes.h"

namespace herald::hrl {

// Not text, and changed by every transfer that takes it for text (high bit, CR LF, end of file).
inline constexpr std::array<uint8_t, 8> kSegmentMagic = {0x89, 'H',  'R',  'L',
                                                         '\r', '\n', 0x1a, '\n'};
inline constexpr uint16_t kVersion = 3;
inline constexpr uint32_t kBlockMagic = 0x4b4c4248;    // "HBLK"
inline constexpr uint32_t kIndexMagic = 0x58444948;    // "HIDX"
inline constexpr uint32_t kSectionMagic = 0x54584548;  // "HEXT"
inline constexpr uint32_t kFooterMagic = 0x52544648;   // "HFTR"

// Bits of features_required that this code knows.
inline constexpr uint32_t kFeatureSealed = 1u << 0;
inline constexpr uint32_t kFeaturesKnown = kFeatureSealed;
// Of features_optional: none yet.
inline constexpr uint32_t kOptionalKnown = 0;

enum class Codec : uint8_t { raw = 0, lz4 = 1 };

struct SegmentHeaderDisk {
    std::array<uint8_t, 8> magic;
    uint16_t version;
    uint16_t header_bytes;
    uint32_t block_bytes;
    uint32_t features_required;
    uint32_t features_optional;
    uint8_t record_order;
    uint8_t contents;
    uint8_t granule_log2;
    uint8_t sealed_by;
    uint8_t reserved_a[4];
    std::array<std::byte, 16> machine;
    std::array<std::byte, 16> disk;
    std::array<std::byte, 16> segment;
    std::array<std::byte, 16> previous_segment;
    uint64_t epoch;
    uint64_t first_position;
    uint64_t disk_bytes;
    uint64_t created_ns;
    std::array<std::byte, 16> key_id;
    std::array<std::byte, 16> seal;
    uint8_t reserved_b[72];  // room for optional features
    std::array<std::byte, 16> header_tag;
    uint64_t checksum;  // XXH3-64 of everything before it
};
static_assert(sizeof(SegmentHeaderDisk) == 256);
static_assert(offsetof(SegmentHeaderDisk, machine) == 32);
static_assert(offsetof(SegmentHeaderDisk, epoch) == 96);
static_assert(offsetof(SegmentHeaderDisk, key_id) == 128);
static_assert(offsetof(SegmentHeaderDisk, seal) == 144);
static_assert(offsetof(SegmentHeaderDisk, header_tag) == 232);
static_assert(offsetof(SegmentHeaderDisk, checksum) == 248);

// Followed by stored_bytes bytes and a checksum: XXH3-64 of header and stored bytes. The checksum
// comes last so that what it covers is one run of bytes.
struct BlockHeaderDisk {
    uint32_t magic;
    uint32_t index;  // 0, 1, 2, ... in the segment
    uint64_t first_position;
    uint32_t record_count;
    uint32_t raw_bytes;
    uint32_t stored_bytes;
    uint8_t codec;
    uint8_t reserved[3];
    uint64_t chain;  // checksum of the block before; of the segment header for block 0
};
static_assert(sizeof(BlockHeaderDisk) == 40);
static_assert(offsetof(BlockHeaderDisk, codec) == 28);
static_assert(offsetof(BlockHeaderDisk, chain) == 32);

// In a sealed file stored bytes are this, sealed data, plain bytes, tag.
struct SealHeaderDisk {
    std::array<std::byte, 16> segment;
    std::array<std::byte, 16> seal;
    uint32_t index;
    uint32_t plain_bytes;
};
static_assert(sizeof(SealHeaderDisk) == 40);

// A block's bytes are the data of its records, one behind the other, then their headers. Headers
// stay together because they compress well so and hinder the compression of data otherwise.
struct RecordHeaderDisk {
    uint8_t kind;
    uint8_t flags;
    uint16_t reserved;
    uint32_t data_bytes;
    uint64_t position;
    uint64_t offset;
    uint64_t length;
    uint64_t time_ns;
};
static_assert(sizeof(RecordHeaderDisk) == 40);
static_assert(offsetof(RecordHeaderDisk, time_ns) == 32);

// Followed by entry_count entries and a checksum: XXH3-64 of header and entries.
struct IndexHeaderDisk {
    uint32_t magic;
    uint32_t entry_count;
    uint64_t chain;  // checksum of the last block
};
static_assert(sizeof(IndexHeaderDisk) == 16);

struct IndexEntryDisk {
    uint64_t file_offset;
    uint64_t first_position;
    uint64_t disk_offset_min;  // of every range in the block; both 0 when there is none
    uint64_t disk_offset_end;  // first byte after the last range
    uint64_t time_min_ns;
    uint64_t time_max_ns;
    uint32_t record_count;
    uint32_t raw_bytes;
    uint32_t stored_bytes;
    uint32_t kinds;  // bit k is set when a record of kind k is in the block; kSpansBit
    bool operator==(const IndexEntryDisk&) const = default;
};
static_assert(sizeof(IndexEntryDisk) == 64);
static_assert(offsetof(IndexEntryDisk, record_count) == 48);

// In kinds: the records of the block are spans (order by block only).
inline constexpr uint32_t kSpansBit = 1u << 31;

// Followed by `bytes` bytes and a checksum: XXH3-64 of header and bytes.
struct SectionHeaderDisk {
    uint32_t magic;
    uint32_t kind;  // the bit of features_optional that owns it
    uint64_t bytes;
};
static_assert(sizeof(SectionHeaderDisk) == 16);

struct FooterDisk {
    uint32_t magic;
    uint32_t block_count;
    uint64_t index_offset;
    uint64_t last_position;
    uint64_t record_count;
    uint64_t raw_bytes;
    uint64_t chain;       // checksum of the last block
    uint64_t file_bytes;  // of the whole file, this footer included
    uint64_t checksum;    // XXH3-64 of everything before it
};
static_assert(sizeof(FooterDisk) == 64);
static_assert(offsetof(FooterDisk, checksum) == 56);

inline constexpr size_t kChecksumBytes = sizeof(uint64_t);
inline constexpr size_t kAuthTagBytes = 16;
// What sealing adds to the stored bytes of a block.
inline constexpr uint32_t kSealBytes = uint32_t(sizeof(SealHeaderDisk) + kAuthTagBytes);
// The tag of the tail and its checksum: the one tag that no other checksum covers.
inline constexpr uint32_t kTailTagBytes = uint32_t(kAuthTagBytes + kChecksumBytes);
inline constexpr uint32_t kBlockBytesMin = 512;
inline constexpr uint8_t kGranuleLog2Min = 9;
inline constexpr uint8_t kGranuleLog2Max = 20;

inline constexpr uint64_t block_file_bytes(uint32_t stored_bytes) {
    return sizeof(BlockHeaderDisk) + uint64_t(stored_bytes) + kChecksumBytes;
}
inline constexpr uint64_t index_file_bytes(uint32_t entry_count) {
    return sizeof(IndexHeaderDisk) + uint64_t(entry_count) * sizeof(IndexEntryDisk) +
           kChecksumBytes;
}

static_assert(sizeof(RecordHeaderDisk) + HERALD_RECORD_DATA_BYTES_MAX <=
              HERALD_HRL_BLOCK_BYTES_LIMIT);

template <class T>
T load_disk(const std::byte* from) {
    T value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

template <class T>
ByteView disk_bytes_of(const T& value) {
    return std::as_bytes(std::span(&value, 1));
}

}  // namespace herald::hrl
