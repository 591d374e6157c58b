// SPDX-License-Identifier: Apache-2.0
#include "user/hrl/v2/log_header.h"

#include <algorithm>

#include "herald/limits.h"
#include "user/hrl/v2/checksum.h"

namespace herald::hrl::v2 {

namespace {

// The format keeps ids as Windows does: the first three parts little-endian. Uuid is in the order
// in which an id is printed.
std::array<std::byte, 16> swapped(std::array<std::byte, 16> bytes) {
    std::reverse(bytes.begin(), bytes.begin() + 4);
    std::reverse(bytes.begin() + 4, bytes.begin() + 6);
    std::reverse(bytes.begin() + 6, bytes.begin() + 8);
    return bytes;
}

Uuid id_of(const std::array<std::byte, 16>& disk) { return Uuid{swapped(disk)}; }

ByteView bytes_of(const LogHeaderDisk& disk) { return std::as_bytes(std::span(&disk, 1)); }

}  // namespace

Result<LogHeader> decode_header(const LogHeaderDisk& disk) {
    if (disk.cookie != kCookie) {
        return fail(ErrorKind::corrupt, "not a replica log: it begins with other bytes");
    }
    const uint32_t stored = disk.checksum;
    if (stored != checksum_around(bytes_of(disk), offsetof(LogHeaderDisk, checksum))) {
        return fail(ErrorKind::corrupt, "header at byte 0: its checksum is wrong");
    }
    LogHeader header;
    header.version = disk.version;
    if (header.version != kVersion1 && header.version != kVersion2) {
        return fail(ErrorKind::operator_needed,
                    "replica log of format version {:#010x}; this program reads {:#010x} and "
                    "{:#010x}",
                    header.version, kVersion1, kVersion2);
    }
    header.time = disk.time;
    header.creator_application = disk.creator_application;
    header.creator_version = disk.creator_version;
    header.original_bytes = disk.original_bytes;
    header.current_bytes = disk.current_bytes;
    header.end_offset = disk.end_offset;
    header.error_code = disk.error_code;
    header.metadata_bytes = disk.metadata_bytes;
    header.id = id_of(disk.id);
    header.previous_id = id_of(disk.previous_id);
    header.modified_time = disk.modified_time;
    header.entry_count = disk.entry_count;
    header.file_type = disk.file_type;
    header.flags = disk.flags;
    if (header.version >= kVersion2) header.data_write_id = id_of(disk.data_write_id);
    if (header.metadata_bytes == 0 || header.metadata_bytes % HERALD_SECTOR_BYTES != 0 ||
        header.metadata_bytes > HERALD_HRL_V2_METADATA_BYTES_MAX) {
        return fail(ErrorKind::corrupt, "header at byte 0: metadata blocks may not have {} bytes",
                    header.metadata_bytes);
    }
    return header;
}

LogHeaderDisk encode_header(const LogHeader& header) {
    LogHeaderDisk disk{};
    disk.cookie = kCookie;
    disk.version = header.version;
    disk.time = header.time;
    disk.creator_application = header.creator_application;
    disk.creator_version = header.creator_version;
    disk.original_bytes = header.original_bytes;
    disk.current_bytes = header.current_bytes;
    disk.end_offset = header.end_offset;
    disk.error_code = header.error_code;
    disk.metadata_bytes = header.metadata_bytes;
    disk.id = swapped(header.id.bytes);
    disk.previous_id = swapped(header.previous_id.bytes);
    disk.modified_time = header.modified_time;
    disk.entry_count = header.entry_count;
    disk.file_type = header.file_type;
    disk.flags = header.flags;
    if (header.version >= kVersion2) disk.data_write_id = swapped(header.data_write_id.bytes);
    disk.checksum = checksum_around(bytes_of(disk), offsetof(LogHeaderDisk, checksum));
    return disk;
}

uint64_t time_ns_of(uint32_t time) { return (kEpochSeconds + time) * 1'000'000'000; }

uint32_t time_of(uint64_t time_ns) {
    const uint64_t seconds = time_ns / 1'000'000'000;
    if (seconds <= kEpochSeconds) return 0;
    return uint32_t(std::min<uint64_t>(seconds - kEpochSeconds, UINT32_MAX));
}

}  // namespace herald::hrl::v2
