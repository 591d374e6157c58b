// SPDX-License-Identifier: Apache-2.0
#include "user/vault/restore_target.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <sstream>

namespace herald::vault {

namespace {

namespace fs = std::filesystem;

// Where the device, or a partition of it, is mounted or used as swap; empty when nowhere.
std::string mounted_at(dev_t device, const fs::path& sysfs) {
    std::ifstream mounts("/proc/self/mountinfo");
    for (std::string line; std::getline(mounts, line);) {
        std::istringstream fields(line);
        std::string id, parent, numbers, root, where;
        if (!(fields >> id >> parent >> numbers >> root >> where)) continue;
        std::error_code ignored;
        const fs::path mounted = fs::canonical("/sys/dev/block/" + numbers, ignored);
        // A partition's folder in sysfs lies below its disk's.
        const std::string below = sysfs.native() + "/";
        if (numbers == fmt::format("{}:{}", major(device), minor(device)) ||
            (!mounted.empty() && mounted.native().compare(0, below.size(), below) == 0)) {
            return where;
        }
    }
    return {};
}

std::string holder_of(const fs::path& sysfs) {
    std::error_code ignored;
    for (const auto& entry : fs::recursive_directory_iterator(
             sysfs, fs::directory_options::skip_permission_denied, ignored)) {
        if (entry.path().parent_path().filename() == "holders") {
            return entry.path().filename().native();
        }
    }
    return {};
}

Result<RestoreTarget> open_device(const fs::path& path, dev_t device, uint64_t bytes,
                                  bool overwrite) {
    std::error_code ignored;
    const fs::path sysfs =
        fs::canonical(fmt::format("/sys/dev/block/{}:{}", major(device), minor(device)), ignored);
    const std::string mounted = mounted_at(device, sysfs);
    if (!mounted.empty()) {
        return fail(ErrorKind::operator_needed,
                    "target {} is mounted at {}; unmount it first, or choose another target",
                    path.native(), mounted);
    }
    const std::string holder = sysfs.empty() ? "" : holder_of(sysfs);
    if (!holder.empty()) {
        return fail(ErrorKind::operator_needed,
                    "target {} is part of {}; take that apart first, or choose another target",
                    path.native(), holder);
    }
    // O_EXCL on a block device: refused while a file system, swap or another exclusive opener
    // has it, and keeps them away as long as it is open.
    auto fd = open_file(path, O_RDWR | O_EXCL);
    if (!fd && fd.error().sys == EBUSY) {
        return fail(ErrorKind::operator_needed,
                    "target {} is in use (mounted, swap, RAID or another program); stop that use "
                    "first, or choose another target",
                    path.native());
    }
    if (!fd) return pass(fd);
    auto size = size_of(fd->get(), path.native());
    if (!size) return pass(size);
    if (*size < bytes) {
        return fail(ErrorKind::operator_needed,
                    "target {} has {} bytes, the disk had {}; choose one that is large enough",
                    path.native(), *size, bytes);
    }
    if (!overwrite) {
        return fail(ErrorKind::operator_needed,
                    "target {} is a block device and all of it would be overwritten; say --force "
                    "if that is meant",
                    path.native());
    }
    return RestoreTarget{std::move(*fd), true, false};
}

}  // namespace

Result<RestoreTarget> open_restore_target(const fs::path& path, uint64_t bytes, bool overwrite) {
    struct stat st {};
    if (::stat(path.c_str(), &st) == 0) {
        if (S_ISBLK(st.st_mode)) return open_device(path, st.st_rdev, bytes, overwrite);
        if (!S_ISREG(st.st_mode)) {
            return fail(ErrorKind::operator_needed,
                        "target {} is neither a file nor a block device", path.native());
        }
        if (!overwrite) {
            return fail(ErrorKind::operator_needed,
                        "target {} exists; choose another name, or say --force to overwrite it",
                        path.native());
        }
    } else if (errno != ENOENT) {
        return fail_errno(errno, fmt::format("target {}", path.native()));
    }
    RestoreTarget target;
    auto fd = open_file(path, O_RDWR | O_CREAT | O_EXCL);
    target.created = bool(fd);
    if (!fd && fd.error().sys == EEXIST && overwrite) fd = open_file(path, O_RDWR);
    if (!fd) return pass(fd);
    target.fd = std::move(*fd);
    // Emptied first: what the stream never wrote must read as zero.
    if (::ftruncate(target.fd.get(), 0) != 0 || ::ftruncate(target.fd.get(), off_t(bytes)) != 0) {
        const int err = errno;
        if (target.created) ::unlink(path.c_str());
        return fail_errno(err, fmt::format("make {} {} bytes long", path.native(), bytes));
    }
    return target;
}

}  // namespace herald::vault
