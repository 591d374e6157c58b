// SPDX-License-Identifier: Apache-2.0
// The bytes of a Hyper-V Replica Log: its structs as they lie in the file, little-endian, packed.
// Promise: sizes and offsets are those of docs/formats/mshrl.md, checked here at compile time.
// Callers: user/hrl/v2, and the tests that forge damaged files.
// Layout: docs/formats/mshrl.md
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "user/base/bytes.h"

namespace herald::hrl::v2 {

inline constexpr std::array<char, 8> kCookie = {'m', 's', 'c', 't', 'l', 'o', 'g', ' '};
inline constexpr uint32_t kVersion1 = 0x00010000;
inline constexpr uint32_t kVersion2 = 0x00020000;
inline constexpr uint8_t kOperationWrite = 1;
inline constexpr uint64_t kHeaderBytes = 4096;
inline constexpr uint32_t kMetadataBytesDefault = 4096;
// 2000-01-01T00:00:00Z, from which the format counts its seconds, in those since 1970.
inline constexpr uint64_t kEpochSeconds = 946'684'800;

#pragma pack(push, 1)
struct LogHeaderDisk {
    std::array<char, 8> cookie;
    uint32_t version;
    uint32_t time;
    std::array<char, 4> creator_application;
    uint32_t creator_version;
    uint64_t original_bytes;
    uint64_t current_bytes;
    uint32_t checksum;
    uint64_t end_offset;  // 0 while the log is open
    uint32_t error_code;
    uint32_t metadata_bytes;
    std::array<std::byte, 16> id;
    std::array<std::byte, 16> previous_id;
    uint32_t modified_time;
    uint64_t entry_count;
    uint32_t file_type;
    uint16_t flags;
    std::array<std::byte, 16> data_write_id;  // not in version 1
    uint8_t reserved[3970];
};

struct MetadataHeaderDisk {
    uint64_t distance_back;  // from this block to the one before; 0 in the first
    uint32_t entry_count;
    uint32_t checksum;
    uint8_t reserved[16];
};

struct EntryDisk {
    uint64_t byte_offset;
    uint32_t checksum;
    uint32_t data_bytes;
    uint32_t time;
    uint8_t operation;
    uint32_t data_checksum;  // 0: none was computed
    uint8_t location;
    uint8_t reserved[6];
};
#pragma pack(pop)

static_assert(sizeof(LogHeaderDisk) == kHeaderBytes);
static_assert(offsetof(LogHeaderDisk, checksum) == 40);
static_assert(offsetof(LogHeaderDisk, end_offset) == 44);
static_assert(offsetof(LogHeaderDisk, id) == 60);
static_assert(offsetof(LogHeaderDisk, entry_count) == 96);
static_assert(offsetof(LogHeaderDisk, data_write_id) == 110);
static_assert(offsetof(LogHeaderDisk, reserved) == 126);
static_assert(sizeof(MetadataHeaderDisk) == 32);
static_assert(offsetof(MetadataHeaderDisk, checksum) == 12);
static_assert(sizeof(EntryDisk) == 32);
static_assert(offsetof(EntryDisk, checksum) == 8);
static_assert(offsetof(EntryDisk, data_checksum) == 21);

}  // namespace herald::hrl::v2
