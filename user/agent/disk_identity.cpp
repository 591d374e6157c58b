// SPDX-License-Identifier: Apache-2.0
#include "user/agent/disk_identity.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <optional>

#include "herald/abi/cbt.h"
#include "herald/limits.h"
#include "user/agent/disk_names.h"
#include "user/agent/mounts.h"
#include "user/base/file.h"

namespace herald::agent {
namespace {

namespace fs = std::filesystem;

uint64_t sysfs_number(const fs::path& path) {
    const std::string text = read_sysfs(path);
    uint64_t value = 0;
    std::from_chars(text.data(), text.data() + text.size(), value);
    return value;
}

std::vector<Partition> partitions_of(const fs::path& sysfs) {
    std::vector<Partition> out;
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(sysfs, ignored)) {
        if (!fs::exists(entry.path() / "partition", ignored)) continue;
        const dev_t dev = parse_dev(read_sysfs(entry.path() / "dev"));
        // sysfs counts in 512-byte sectors whatever the disk's own block is.
        out.push_back({entry.path().filename().native(),
                       major(dev),
                       minor(dev),
                       {sysfs_number(entry.path() / "start") * HERALD_SECTOR_BYTES,
                        sysfs_number(entry.path() / "size") * HERALD_SECTOR_BYTES}});
    }
    std::sort(out.begin(), out.end(), [](const Partition& a, const Partition& b) {
        return a.range.offset < b.range.offset;
    });
    return out;
}

// "/dev/sda, /dev/sdb": the disks at the bottom of a stacked device.
std::string disks_below(const fs::path& sysfs, unsigned nesting = 0) {
    std::string out;
    std::error_code ignored;
    if (nesting > 16) return out;
    for (const auto& entry : fs::directory_iterator(sysfs / "slaves", ignored)) {
        fs::path below = fs::canonical(entry.path(), ignored);
        if (fs::exists(below / "partition", ignored)) below = below.parent_path();
        std::string name = disks_below(below, nesting + 1);
        if (name.empty()) name = "/dev/" + below.filename().native();
        if (out.find(name) == std::string::npos) out += (out.empty() ? "" : ", ") + name;
    }
    return out;
}

// The driver dm_cbt tracks this device-mapper device: then it is a disk of its own.
bool driver_tracks(uint64_t number_major, uint64_t number_minor) {
    auto file = open_file("/dev/" HERALD_CBT_DEVICE, O_RDWR);
    if (!file) return false;
    std::vector<herald_cbt_row_abi> rows(HERALD_CBT_DISKS_MAX);
    herald_cbt_list_abi list{};
    list.size = sizeof list;
    list.rows = std::bit_cast<uintptr_t>(rows.data());
    list.capacity = HERALD_CBT_DISKS_MAX;
    if (::ioctl(file->get(), HERALD_CBT_LIST, &list) != 0) return false;
    rows.resize(std::min<size_t>(rows.size(), list.count));
    return std::any_of(rows.begin(), rows.end(), [&](const herald_cbt_row_abi& row) {
        return row.disk.major == number_major && row.disk.minor == number_minor;
    });
}

Result<void> refuse_stacked(const fs::path& path, const fs::path& sysfs, const std::string& name) {
    std::error_code ignored;
    const char* what = nullptr;
    if (fs::exists(sysfs / "dm", ignored)) what = "a device-mapper device (LVM, crypt, multipath)";
    if (fs::exists(sysfs / "md", ignored)) what = "a software RAID array";
    if (what) {
        const std::string below = disks_below(sysfs);
        return fail(ErrorKind::operator_needed, "{} is {}: protect the disk{} below it{}{}",
                    path.native(), what, below.find(',') == std::string::npos ? "" : "s",
                    below.empty() ? "" : ": ", below);
    }
    if (name.starts_with("zram") || name.starts_with("ram")) {
        return fail(ErrorKind::operator_needed,
                    "{} is memory, not a disk: its content does not outlive a restart",
                    path.native());
    }
    // Only request-based (blk-mq) devices have this folder; the tracker follows requests.
    if (!fs::exists(sysfs / "mq", ignored)) {
        return fail(ErrorKind::operator_needed,
                    "{} has no request queue of its own (a bio-based driver, such as NVMe "
                    "multipath or pmem): protect the device below it",
                    path.native());
    }
    return {};
}

}  // namespace

Result<DiskIdentity> identify(const fs::path& path) {
    struct stat st {};
    if (::stat(path.c_str(), &st) != 0) {
        return fail_errno(errno, fmt::format("disk {}", path.native()));
    }
    if (!S_ISBLK(st.st_mode)) {
        return fail(ErrorKind::operator_needed,
                    "{} is not a block device: give a whole disk such as /dev/sda", path.native());
    }
    std::error_code error;
    const fs::path sysfs = fs::canonical(
        fmt::format("/sys/dev/block/{}:{}", major(st.st_rdev), minor(st.st_rdev)), error);
    if (error) {
        return fail(ErrorKind::operator_needed,
                    "{}: the kernel knows no such device (is /sys mounted?)", path.native());
    }
    if (fs::exists(sysfs / "partition", error)) {
        return fail(ErrorKind::operator_needed,
                    "{} is a partition: protect the whole disk: /dev/{}", path.native(),
                    sysfs.parent_path().filename().native());
    }
    DiskIdentity disk;
    disk.path = path;
    disk.kernel_name = sysfs.filename().native();
    disk.by_driver =
        fs::exists(sysfs / "dm", error) && driver_tracks(major(st.st_rdev), minor(st.st_rdev));
    if (!disk.by_driver) {
        auto accepted = refuse_stacked(path, sysfs, disk.kernel_name);
        if (!accepted) return pass(accepted);
    }
    disk.major = major(st.st_rdev);
    disk.minor = minor(st.st_rdev);
    disk.diskseq = sysfs_number(sysfs / "diskseq");
    disk.read_only = sysfs_number(sysfs / "ro") != 0;

    auto fd = open_file(path, O_RDONLY | O_NONBLOCK);
    if (!fd) return pass(fd);
    auto bytes = size_of(fd->get(), path.native());
    if (!bytes) return pass(bytes);
    disk.bytes = *bytes;
    if (disk.bytes == 0) {
        return fail(ErrorKind::operator_needed, "{} has no medium (size 0)", path.native());
    }
    if (disk.bytes > HERALD_DISK_BYTES_MAX) {
        return fail(ErrorKind::operator_needed, "{} has {} bytes; Herald protects disks up to {}",
                    path.native(), disk.bytes, HERALD_DISK_BYTES_MAX);
    }
    int logical = 0;
    if (::ioctl(fd->get(), BLKSSZGET, &logical) == 0 && logical > 0) {
        disk.logical_block_bytes = uint32_t(logical);
    }
    disk.partitions = partitions_of(sysfs);

    // A loop device is its file: a copy of an image has the same partition table, and a
    // scratch disk gets one later.
    const std::string backing = read_sysfs(sysfs / "loop/backing_file");
    if (!backing.empty()) {
        disk.identity = "loop:" + backing;
        return disk;
    }
    // A volume is named by whoever made it (LVM gives it an id), whatever disks it lies on.
    if (disk.by_driver) {
        const std::string uuid = read_sysfs(sysfs / "dm/uuid");
        disk.identity = "dm:" + (uuid.empty() ? read_sysfs(sysfs / "dm/name") : uuid);
        return disk;
    }
    disk.identity = hardware_name(sysfs);
    if (disk.identity.empty()) {
        Bytes head(std::max<size_t>(2 * disk.logical_block_bytes, 4096));
        if (disk.bytes >= head.size()) {
            auto read = read_exact(fd->get(), 0, head, path.native());
            if (!read) return pass(read);
            disk.identity = partition_table_name(head, disk.logical_block_bytes);
        }
    }
    if (disk.identity.empty()) {
        return fail(ErrorKind::operator_needed,
                    "{} has no WWN, serial number or GPT that could identify it: give the virtual "
                    "disk a serial number, or write a GPT to it",
                    path.native());
    }
    return disk;
}

Result<DiskIdentity> find_disk(std::string_view identity) {
    std::optional<DiskIdentity> found;
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator("/sys/block", ignored)) {
        // Most are refused: no medium, stacked, nothing attached.
        auto disk = identify(fs::path("/dev") / entry.path().filename());
        if (!disk || disk->identity != identity) continue;
        if (found) {
            return fail(ErrorKind::operator_needed,
                        "{} and {} both say that they are {}: give the copy an identity of its own",
                        found->path.native(), disk->path.native(), identity);
        }
        found = std::move(*disk);
    }
    if (!found) return fail(ErrorKind::operator_needed, "no disk says that it is {}", identity);
    return std::move(*found);
}

}  // namespace herald::agent
