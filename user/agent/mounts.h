// SPDX-License-Identifier: Apache-2.0
// Mounts: what /proc/self/mountinfo says, and which block devices a mount's superblock is on.
// Callers: any thread. Owns its copy of the table. Failure: errors name the file that was read.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "user/base/result.h"

namespace herald::agent {

struct Mount {
    uint64_t id = 0;
    dev_t device = 0;  // s_dev of the superblock; major 0 for btrfs, overlay, tmpfs, ...
    std::string root;
    std::string mount_point;
    std::string type;
    std::string source;
    std::string super_options;

    bool superblock_read_only() const;
};

class Mounts {
  public:
    static Result<Mounts> read();
    // Lines that do not parse are left out: the kernel may add forms, never change these fields.
    static Mounts parse(std::string_view mountinfo);

    const std::vector<Mount>& all() const { return mounts_; }
    // The mount that a path is on (symbolic links followed; its nearest existing parent, where it
    // does not exist). Null when there is none in this namespace.
    const Mount* holding(const std::filesystem::path& path) const;
    // Whether opening the mount point really leads to this mount, not to one on top of it.
    static bool reachable(const Mount& mount);
    // The block devices below: one for most types, all members for btrfs, those of the upper
    // directory for overlay, none for what is not on a block device.
    std::vector<dev_t> devices_of(const Mount& mount) const;

  private:
    std::vector<dev_t> devices_of(const Mount& mount, unsigned nesting) const;
    std::vector<Mount> mounts_;
};

// "\040" and the like as mountinfo and /proc/swaps write them.
std::string unescape_octal(std::string_view text);
// A small file of sysfs or procfs without its last newline; empty when it cannot be read.
std::string read_sysfs(const std::filesystem::path& path);
// "8:1" of a sysfs dev file; 0 when it is not that.
dev_t parse_dev(std::string_view text);

}  // namespace herald::agent
