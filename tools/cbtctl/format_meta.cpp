// SPDX-License-Identifier: Apache-2.0
// format-meta: makes a device the meta device of a disk. Layout: docs/formats/dirty_map.md
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "herald/limits.h"
#include "tools/cbtctl/commands.h"
#include "user/base/file.h"
#include "user/base/output.h"
#include "user/base/terminal.h"
#include "user/base/uuid.h"

extern "C" {
#include "kernel/core/layout.h"
}

namespace herald::cbtctl {
namespace {

constexpr uint64_t kLookedAt = 128u << 10;

struct Signature {
    const char* name;
    size_t offset;
    std::string_view bytes;
};
using namespace std::string_view_literals;
constexpr std::array kSignatures{
    Signature{"a meta device of Herald", 4096, "CBMT"sv},
    Signature{"an ext2, ext3 or ext4 filesystem", 0x438, "\x53\xef"sv},
    Signature{"an XFS filesystem", 0, "XFSB"sv},
    Signature{"a btrfs filesystem", 0x10040, "_BHRfS_M"sv},
    Signature{"an LVM physical volume", 512, "LABELONE"sv},
    Signature{"a LUKS volume", 0, "LUKS\xba\xbe"sv},
    Signature{"swap space", 4086, "SWAPSPACE2"sv},
    Signature{"a GPT", 512, "EFI PART"sv},
    Signature{"a partition table or boot sector", 510, "\x55\xaa"sv},
};

// What the device holds, in words; empty: nothing but zeroes where signatures are.
Result<std::string> content_of(int fd, uint64_t bytes, const std::string& path) {
    Bytes start(std::min(bytes, kLookedAt));
    auto read = read_exact(fd, 0, start, path);
    if (!read) return pass(read);
    const std::string_view text = as_text(start);
    for (const Signature& one : kSignatures) {
        if (text.size() >= one.offset && text.substr(one.offset).starts_with(one.bytes)) {
            return std::string(one.name);
        }
    }
    // RAID and backups of partition tables are at the end.
    Bytes end(std::min(bytes, kLookedAt));
    read = read_exact(fd, bytes - end.size(), end, path);
    if (!read) return pass(read);
    if (!all_zero(start) || !all_zero(end)) return std::string("data of an unknown kind");
    return std::string();
}

Result<uint64_t> bytes_of(const std::string& path) {
    auto fd = open_file(path, O_RDONLY | O_NONBLOCK);
    if (!fd) return pass(fd);
    return size_of(fd->get(), path);
}

Result<uint64_t> format(const FormatMetaOptions& options, const Uuid& tracking) {
    auto disk_bytes = bytes_of(options.disk);
    if (!disk_bytes) return pass(disk_bytes);
    struct stat meta_stat {
    }, disk_stat{};
    if (::stat(options.meta.c_str(), &meta_stat) != 0) return fail_errno(errno, options.meta);
    if (::stat(options.disk.c_str(), &disk_stat) != 0) return fail_errno(errno, options.disk);
    const bool device = S_ISBLK(meta_stat.st_mode);
    if ((device && S_ISBLK(disk_stat.st_mode) && meta_stat.st_rdev == disk_stat.st_rdev) ||
        (meta_stat.st_dev == disk_stat.st_dev && meta_stat.st_ino == disk_stat.st_ino)) {
        return fail(ErrorKind::operator_needed, "{} and {} are the same device", options.meta,
                    options.disk);
    }
    // O_EXCL: of a block device, refused while a mount, a swap or another device has it.
    auto fd = open_file(options.meta, O_RDWR | (device ? O_EXCL : 0));
    if (!fd && fd.error().sys == EBUSY) {
        return fail(ErrorKind::operator_needed,
                    "{} is in use (mounted, swap, or part of another device): nothing was written",
                    options.meta);
    }
    if (!fd) return pass(fd);
    auto meta_bytes = size_of(fd->get(), options.meta);
    if (!meta_bytes) return pass(meta_bytes);
    const uint64_t sectors = *disk_bytes / HERALD_SECTOR_BYTES;
    if (sectors == 0 || *disk_bytes > HERALD_DISK_BYTES_MAX) {
        return fail(ErrorKind::operator_needed, "{} has {} bytes: no disk that is tracked",
                    options.disk, *disk_bytes);
    }
    const uint64_t needed = cbt_meta_blocks(sectors) * CBT_META_BLOCK_BYTES;
    if (*meta_bytes < needed) {
        return fail(ErrorKind::operator_needed,
                    "{} is too small: it has {} bytes, and {} of {} needs {}", options.meta,
                    *meta_bytes, options.disk, human_bytes(*disk_bytes), needed);
    }
    if (!options.force) {
        auto held = content_of(fd->get(), *meta_bytes, options.meta);
        if (!held) return pass(held);
        if (!held->empty()) {
            return fail(ErrorKind::operator_needed,
                        "{} holds {}: nothing was written. --force overwrites it", options.meta,
                        *held);
        }
    }
    // Block 1 is the superblock: whole only when all else is there.
    Bytes block(CBT_META_BLOCK_BYTES);
    const auto write = [&](uint64_t number) {
        cbt_meta_format(sectors, reinterpret_cast<const u8*>(tracking.bytes.data()), number,
                        block.data());
        return write_exact(fd->get(), number * CBT_META_BLOCK_BYTES, block, options.meta);
    };
    const Bytes nothing(2 * CBT_META_BLOCK_BYTES);
    auto done = write_exact(fd->get(), 0, nothing, options.meta);
    if (done) done = sync_fd(fd->get(), options.meta);
    for (uint64_t number = 2; done && number < cbt_meta_blocks(sectors); ++number) {
        done = write(number);
    }
    if (done) done = sync_fd(fd->get(), options.meta);
    if (done) done = write(1);
    if (done) done = sync_fd(fd->get(), options.meta);
    if (!done) return pass(done);
    return sectors;
}

}  // namespace

int format_meta(const Context& context, const FormatMetaOptions& options) {
    const Uuid tracking = Uuid::random();
    auto sectors = format(options, tracking);
    if (!sectors) return report(sectors.error());
    const uint64_t needed = cbt_meta_blocks(*sectors) * CBT_META_BLOCK_BYTES;
    if (context.json) {
        print_json({{"meta", options.meta},
                    {"disk", options.disk},
                    {"tracking", to_string(tracking)},
                    {"sectors", *sectors},
                    {"used_bytes", needed}});
    } else {
        print_out("{} is a meta device for {} ({} used): cbtctl protect {} --meta {}\n",
                  options.meta, options.disk, human_bytes(needed), options.disk, options.meta);
    }
    return kDone;
}

}  // namespace herald::cbtctl
