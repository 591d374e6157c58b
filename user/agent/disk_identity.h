// SPDX-License-Identifier: Apache-2.0
// DiskIdentity: which disk a path means, said in a way that survives renaming: WWN, serial number,
// partition-table GUID, or for a loop device its backing file. And what lies on the disk, as far
// up as the stack of devices goes: partitions, dm, md, LVM, loop devices whose file is on it.
// Promise: two disks never get one identity without a warning in their own firmware; a partition
// or a bio-based device is refused by name, with what to protect instead.
// Callers: any thread; reads sysfs and procfs, opens the disk read-only. Owns nothing.
// Failure: operator_needed, naming the path. Mounts of other mount namespaces are not seen: the
// daemon runs in the host's.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "user/base/result.h"
#include "user/base/uuid.h"

namespace herald::agent {

// Bytes of the source disk.
struct ByteRange {
    uint64_t offset = 0;
    uint64_t bytes = 0;
    bool operator==(const ByteRange&) const = default;
};

struct Partition {
    std::string name;  // as the kernel calls it: "sda1"
    uint32_t major = 0;
    uint32_t minor = 0;
    ByteRange range;
};

struct DiskIdentity {
    std::filesystem::path path;  // as given
    std::string kernel_name;     // "sda", "loop0"
    uint32_t major = 0;
    uint32_t minor = 0;
    uint64_t bytes = 0;
    uint32_t logical_block_bytes = 512;
    uint64_t diskseq = 0;  // a new number each time media or backing file change; 0: unknown
    bool read_only = false;
    bool by_driver = false;  // a volume that the driver dm_cbt tracks
    std::string identity;    // "wwn:...", "serial:...", "gpt:GUID", "loop:/backing/file", "dm:..."
    std::vector<Partition> partitions;  // by offset

    // "/dev/sda": the node for messages and opening; `path` may be any link to it.
    std::filesystem::path node() const { return std::filesystem::path("/dev") / kernel_name; }
    // The disk's id in Herald: the same for the same machine and disk, always.
    Uuid disk_id(const Uuid& machine) const { return Uuid::from_name(machine, identity); }
};

// Refuses what is not a whole, request-based block device that a tracker can follow, nor a volume
// that the driver dm_cbt tracks.
Result<DiskIdentity> identify(const std::filesystem::path& path);

// The disk that has this identity now, whatever the kernel calls it. Failure: operator_needed when
// there is none, or more than one (clones of a partition table).
Result<DiskIdentity> find_disk(std::string_view identity);

// One superblock on the disk, whatever the number of its mounts.
struct MountedFilesystem {
    std::string mount_point;  // one that can be opened and shows this superblock
    std::string type;         // "ext4"
    std::string source;       // "/dev/sda1"
    dev_t device = 0;         // s_dev; anonymous for btrfs
    unsigned depth = 0;       // 0: on the disk or its partition; 1: on a dm or loop on that; ...
    // Where on the disk its blocks can be: the disk, its partition, or for a nested one
    // those of the filesystem below.
    std::vector<ByteRange> extents;
};

// Something on the disk that writes and cannot be frozen.
struct Unfreezable {
    std::string what;   // "vfat at /boot/efi", "swap on /dev/sda2"
    std::string cause;  // "vfat has no freeze"
    std::vector<ByteRange> extents;
    bool holds_files = false;  // a filesystem; swap is not
    // What can be flushed all the same; nothing for swap and a hidden mount point.
    std::optional<MountedFilesystem> filesystem;
};

struct DiskUse {
    std::vector<MountedFilesystem> filesystems;  // in freezing order: the top of the stack first
    std::vector<Unfreezable> unfreezable;
};

Result<DiskUse> find_use(const DiskIdentity& disk);

// Whether a file (its nearest existing parent, if it does not exist) lies on a filesystem on this
// disk at any depth of the stack. For spool, state and log: those must not.
Result<bool> is_on_disk(const std::filesystem::path& path, const DiskIdentity& disk);

}  // namespace herald::agent
