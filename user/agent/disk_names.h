// SPDX-License-Identifier: Apache-2.0
// What a disk says about itself: names from its firmware and from its partition table.
// Callers: identify() and tests. Owns nothing. Failure: empty text, never a guess.
#pragma once

#include <filesystem>
#include <string>

#include "user/base/bytes.h"

namespace herald::agent {

// "wwn:..." or "serial:..." from a disk's sysfs folder; empty when the firmware gives none.
std::string hardware_name(const std::filesystem::path& sysfs);
// "gpt:GUID" from the first blocks of a disk, its header's checksum verified; otherwise empty.
std::string partition_table_name(ByteView head, uint32_t logical_block_bytes);

}  // namespace herald::agent
