// SPDX-License-Identifier: Apache-2.0
// BlockDevice: what the kernel says about one whole disk, and whether it can be tracked by its
// request tracepoints.
// Promise: read from sysfs only; the device itself is not opened, so that looking never keeps a
// disk from being detached.
// Callers: any thread. Failure: an error names the device and what is wrong with it.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "user/base/result.h"

namespace herald::tracker {

struct BlockDevice {
    std::string name;             // as in /sys/class/block, for example "sda"
    std::filesystem::path sysfs;  // /sys/devices/.../sda
    dev_t dev = 0;                // user-space encoding
    uint64_t bytes = 0;
    uint64_t diskseq = 0;  // new each time something is attached under this name
};

// The disk behind a path such as /dev/sda; a partition or a file is refused by name.
Result<BlockDevice> inspect_block_device(const std::filesystem::path& path);

// Refuses, by name and with the reason, what has no request tracepoints (dm, md, zram, pmem, NVMe
// multipath), one path of dm-multipath, zoned and DAX devices, and empty or too large ones.
Result<void> check_trackable(const BlockDevice& device);

// Requests that can be under way at once: what the table of open writes is sized by.
Result<uint64_t> requests_max(const BlockDevice& device);

// Its size and attachment as they are now, under the same name.
Result<BlockDevice> look_again(const BlockDevice& before);

// Writes (and discards) in flight by the kernel's own count; nothing when it does not count
// (queue/iostats is 0).
Result<std::optional<uint64_t>> writes_in_flight(const BlockDevice& device);
// Those of them that were submitted to one of its partitions; nothing when `part` is none.
Result<std::optional<uint64_t>> writes_in_flight(const BlockDevice& device, dev_t part);

}  // namespace herald::tracker
