// SPDX-License-Identifier: Apache-2.0
// Metadata blocks of a replica log: a header, and the entries that describe the data before it.
// Promise: entries handed out have right checksums, known operations, ranges on a disk, and
// lengths that add up to exactly the data they describe; in whichever of the two orders they lie.
// Callers: any thread. Sans I/O. Failure: corrupt names the slot; operator_needed names what this
// code does not know.
// Layout: docs/formats/mshrl.md
#pragma once

#include <vector>

#include "user/base/result.h"
#include "user/hrl/v2/layout.h"

namespace herald::hrl::v2 {

// How valid entries lie in a block's slots.
enum class EntryOrder : uint8_t {
    oldest_first = 1,  // from the first slot on, the unused slots behind them
    newest_first = 2,  // the unused slots first, the oldest entry in the last slot
};

struct Entry {
    uint64_t byte_offset = 0;  // on the disk
    uint32_t data_bytes = 0;
    uint32_t time = 0;
    uint32_t data_checksum = 0;  // 0: none was computed
    bool operator==(const Entry&) const = default;
};

struct MetadataHeader {
    uint64_t distance_back = 0;  // to the block before; 0 in the first
    uint32_t entry_count = 0;
};

inline constexpr uint32_t entry_slots(uint32_t metadata_bytes) {
    return uint32_t((metadata_bytes - sizeof(MetadataHeaderDisk)) / sizeof(EntryDisk));
}

Result<MetadataHeader> decode_metadata_header(ByteView block, uint32_t metadata_bytes);

// The valid entries, oldest first, if they lie in this order and describe exactly data_bytes.
Result<std::vector<Entry>> decode_entries(ByteView block, EntryOrder order, uint64_t data_bytes);

// A whole block, metadata_bytes long. There must be slots for the entries.
Bytes encode_metadata(uint64_t distance_back, const std::vector<Entry>& entries, EntryOrder order,
                      uint32_t metadata_bytes);

const char* to_string(EntryOrder order);

}  // namespace herald::hrl::v2
