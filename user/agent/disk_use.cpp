// SPDX-License-Identifier: Apache-2.0
// Which filesystems and swaps lie on a disk, found from the bottom up: the disk and its partitions;
// what the kernel calls their holders (dm, md); the filesystems on those; the loop devices whose
// file is on one of these filesystems; and round again until nothing new is found.
#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <optional>
#include <set>
#include <sstream>

#include "user/agent/disk_identity.h"
#include "user/agent/mounts.h"
#include "user/base/file.h"

namespace herald::agent {
namespace {

namespace fs = std::filesystem;

// A stack deeper than this is a loop in our own reading of it.
constexpr unsigned kDepthMax = 16;

struct StackDevice {
    unsigned depth = 0;
    std::vector<ByteRange> extents;
};

void unite(std::vector<ByteRange>& to, const std::vector<ByteRange>& from) {
    for (const ByteRange& range : from) {
        if (std::find(to.begin(), to.end(), range) == to.end()) to.push_back(range);
    }
}

class Stack {
  public:
    Stack(const DiskIdentity& disk, const Mounts& mounts) : mounts_(mounts) {
        add(makedev(disk.major, disk.minor), {0, {{0, disk.bytes}}});
        for (const Partition& partition : disk.partitions) {
            add(makedev(partition.major, partition.minor), {0, {partition.range}});
        }
        for (unsigned round = 0; round < kDepthMax; ++round) {
            const bool holders = add_holders();
            const bool loops = add_loops();
            if (!holders && !loops) break;
        }
    }

    // Where the superblock of a mount lies, if on this disk at all.
    std::optional<StackDevice> below(const Mount& mount) const {
        std::optional<StackDevice> out;
        for (dev_t device : mounts_.devices_of(mount)) {
            const auto found = devices_.find(device);
            if (found == devices_.end()) continue;
            if (!out) out.emplace();
            out->depth = std::max(out->depth, found->second.depth);
            unite(out->extents, found->second.extents);
        }
        return out;
    }

    const StackDevice* find(dev_t device) const {
        const auto found = devices_.find(device);
        return found == devices_.end() ? nullptr : &found->second;
    }

  private:
    bool add(dev_t device, StackDevice what) {
        if (device == 0 || what.depth > kDepthMax) return false;
        auto [it, fresh] = devices_.emplace(device, what);
        if (fresh) return true;
        const size_t extents = it->second.extents.size();
        const unsigned depth = it->second.depth;
        it->second.depth = std::max(depth, what.depth);
        unite(it->second.extents, what.extents);
        return it->second.depth != depth || it->second.extents.size() != extents;
    }

    static fs::path sysfs_of(dev_t device) {
        return fmt::format("/sys/dev/block/{}:{}", major(device), minor(device));
    }

    bool add_holders() {
        bool grew = false;
        const auto known = devices_;
        std::error_code ignored;
        for (const auto& [device, what] : known) {
            for (const auto& entry :
                 fs::directory_iterator(sysfs_of(device) / "holders", ignored)) {
                grew |= add_with_partitions(entry.path(), {what.depth + 1, what.extents});
            }
        }
        return grew;
    }

    bool add_with_partitions(const fs::path& sysfs, const StackDevice& what) {
        bool grew = add(parse_dev(read_sysfs(sysfs / "dev")), what);
        std::error_code ignored;
        for (const auto& entry : fs::directory_iterator(sysfs, ignored)) {
            if (!fs::exists(entry.path() / "partition", ignored)) continue;
            grew |= add(parse_dev(read_sysfs(entry.path() / "dev")), what);
        }
        return grew;
    }

    bool add_loops() {
        bool grew = false;
        std::error_code ignored;
        for (const auto& entry : fs::directory_iterator("/sys/block", ignored)) {
            const std::string file = read_sysfs(entry.path() / "loop/backing_file");
            if (file.empty()) continue;
            const Mount* host = host_of_loop(entry.path().filename().native(), file);
            if (!host) continue;
            const auto what = below(*host);
            if (what) grew |= add_with_partitions(entry.path(), {what->depth + 1, what->extents});
        }
        return grew;
    }

    // The mount whose superblock holds a loop device's file, by the device number in the loop's
    // status: the path may have been deleted, belong to another mount namespace, or lie on a
    // network filesystem whose server is gone, where a look at it does not return. Only a btrfs
    // subvolume is in no mount's device number.
    const Mount* host_of_loop(const std::string& name, const std::string& file) const {
        dev_t device = 0;
        ino_t inode = 0;
        if (auto fd = open_file("/dev/" + name, O_RDONLY | O_NONBLOCK)) {
            loop_info64 info{};
            if (::ioctl(fd->get(), LOOP_GET_STATUS64, &info) == 0) {
                // The kernel gives its user-space encoding of the device number.
                device = dev_t(info.lo_device);
                inode = ino_t(info.lo_inode);
            }
        }
        for (const Mount& mount : mounts_.all()) {
            if (mount.device == device && device != 0) return &mount;
        }
        struct stat st {};
        if (major(device) == 0 && ::stat(file.c_str(), &st) == 0 &&
            (device == 0 || (st.st_dev == device && st.st_ino == inode))) {
            return mounts_.holding(file);
        }
        return nullptr;
    }

    const Mounts& mounts_;
    std::map<dev_t, StackDevice> devices_;
};

// Types with no freeze_fs in the kernel; others are tried, and FIFREEZE itself says no.
bool cannot_freeze(const std::string& type) {
    static const std::set<std::string> kTypes = {"vfat",  "msdos",   "exfat", "ntfs",
                                                 "ntfs3", "fuseblk", "hfs",   "hfsplus",
                                                 "udf",   "minix",   "ufs",   "affs"};
    return kTypes.contains(type);
}

// What is read-only and stays so needs no freeze.
bool never_writes(const std::string& type) {
    static const std::set<std::string> kTypes = {"iso9660", "squashfs", "erofs", "cramfs", "romfs"};
    return kTypes.contains(type);
}

void add_swaps(const Mounts& mounts, const Stack& stack, DiskUse& use) {
    std::ifstream swaps("/proc/swaps");
    std::string line;
    std::getline(swaps, line);  // the header
    while (std::getline(swaps, line)) {
        std::istringstream fields(line);
        std::string path, kind;
        fields >> path >> kind;
        path = unescape_octal(path);
        struct stat st {};
        if (::stat(path.c_str(), &st) != 0) continue;
        if (S_ISBLK(st.st_mode)) {
            const StackDevice* on = stack.find(st.st_rdev);
            if (!on) continue;
            use.unfreezable.push_back(
                {"swap on " + path, "swap is active and cannot be frozen", on->extents, false, {}});
        } else if (const Mount* mount = mounts.holding(path)) {
            const auto on = stack.below(*mount);
            if (!on) continue;
            use.unfreezable.push_back({"swap file " + path,
                                       "swap is active and writes past its filesystem's freeze",
                                       on->extents,
                                       false,
                                       {}});
        }
    }
}

}  // namespace

Result<DiskUse> find_use(const DiskIdentity& disk) {
    auto mounts = Mounts::read();
    if (!mounts) return pass(mounts);
    const Stack stack(disk, *mounts);

    struct Superblock {
        const Mount* mount = nullptr;
        bool reachable = false;
        StackDevice on;
    };
    std::vector<Superblock> superblocks;  // each s_dev once, in mount order
    for (const Mount& mount : mounts->all()) {
        // Overlay writes through the filesystem of its upper directory: that one is frozen.
        if (mount.type == "overlay") continue;
        auto known = std::find_if(superblocks.begin(), superblocks.end(), [&](const auto& one) {
            return one.mount->device == mount.device;
        });
        if (known != superblocks.end()) {
            if (!known->reachable && Mounts::reachable(mount)) {
                known->mount = &mount;
                known->reachable = true;
            }
            continue;
        }
        if (auto on = stack.below(mount)) {
            superblocks.push_back({&mount, Mounts::reachable(mount), std::move(*on)});
        }
    }

    DiskUse use;
    for (const Superblock& one : superblocks) {
        const Mount& mount = *one.mount;
        const std::string what = mount.type + " at " + mount.mount_point;
        if (never_writes(mount.type)) continue;
        const MountedFilesystem filesystem{mount.mount_point, mount.type,   mount.source,
                                           mount.device,      one.on.depth, one.on.extents};
        if (cannot_freeze(mount.type)) {
            if (mount.superblock_read_only()) continue;
            use.unfreezable.push_back({what, mount.type + " has no freeze", one.on.extents, true,
                                       one.reachable ? std::optional(filesystem) : std::nullopt});
        } else if (!one.reachable) {
            use.unfreezable.push_back({what, "its mount point is hidden under another mount",
                                       one.on.extents, true, std::nullopt});
        } else {
            use.filesystems.push_back(filesystem);
        }
    }
    // The top of the stack first: what a nested filesystem flushes goes into the one below.
    std::stable_sort(use.filesystems.begin(), use.filesystems.end(),
                     [](const auto& a, const auto& b) { return a.depth > b.depth; });
    add_swaps(*mounts, stack, use);
    return use;
}

Result<bool> is_on_disk(const fs::path& path, const DiskIdentity& disk) {
    auto mounts = Mounts::read();
    if (!mounts) return pass(mounts);
    const Mount* mount = mounts->holding(path);
    if (!mount) {
        return fail(ErrorKind::operator_needed, "{}: no mount of this namespace holds it",
                    path.native());
    }
    return Stack(disk, *mounts).below(*mount).has_value();
}

}  // namespace herald::agent
