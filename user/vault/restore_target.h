// SPDX-License-Identifier: Apache-2.0
// open_restore_target() opens what a restore may write on, and refuses what it must not destroy:
// a block device that is mounted, held or open elsewhere; a target smaller than the disk; a file
// that exists, unless told so. Every refusal says what to do.
#pragma once

#include <filesystem>

#include "user/base/file.h"

namespace herald::vault {

struct RestoreTarget {
    Fd fd;
    bool block_device = false;
    bool created = false;  // the file did not exist
};

// A file is created, or (with overwrite) emptied, and made `bytes` long. A block device needs
// `overwrite` too, is opened exclusively and keeps its size.
Result<RestoreTarget> open_restore_target(const std::filesystem::path& path, uint64_t bytes,
                                          bool overwrite);

}  // namespace herald::vault
