// SPDX-License-Identifier: Apache-2.0
// LogHeader: the first 4096 bytes of a Hyper-V Replica Log.
// Promise: what is decoded has the right cookie, a known version, a right checksum, and a metadata
// size that is in bounds; every other field is as the file has it.
// Callers: any thread. Failure: corrupt; operator_needed for a version this code does not know.
// Layout: docs/formats/mshrl.md
#pragma once

#include "user/base/result.h"
#include "user/base/uuid.h"
#include "user/hrl/v2/layout.h"

namespace herald::hrl::v2 {

struct LogHeader {
    uint32_t version = kVersion2;
    uint32_t time = 0;  // of creation; all times are seconds since 2000
    std::array<char, 4> creator_application{};
    uint32_t creator_version = 0;
    uint64_t original_bytes = 0;
    uint64_t current_bytes = 0;
    uint64_t end_offset = 0;  // 0: the log was not closed
    uint32_t error_code = 0;
    uint32_t metadata_bytes = kMetadataBytesDefault;
    Uuid id;
    Uuid previous_id;
    uint32_t modified_time = 0;
    uint64_t entry_count = 0;
    uint32_t file_type = 0;
    uint16_t flags = 0;
    Uuid data_write_id;  // nil in version 1
    bool operator==(const LogHeader&) const = default;
};

Result<LogHeader> decode_header(const LogHeaderDisk& disk);
LogHeaderDisk encode_header(const LogHeader& header);

// A log's seconds in nanoseconds since 1970, and back: cut to a second, and held within the
// seconds that the format has (2000 to 2136).
uint64_t time_ns_of(uint32_t time);
uint32_t time_of(uint64_t time_ns);

}  // namespace herald::hrl::v2
