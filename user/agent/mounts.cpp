// SPDX-License-Identifier: Apache-2.0
#include "user/agent/mounts.h"

#include <fcntl.h>
#include <linux/btrfs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <charconv>
#include <fstream>
#include <sstream>

#include "user/base/digest.h"
#include "user/base/file.h"
#include "user/base/uuid.h"

namespace herald::agent {
namespace {

// A mount table beyond this is not one: 100 k mounts of 160 bytes.
constexpr size_t kMountinfoBytesMax = 16u << 20;
// overlay on overlay: the kernel itself allows two levels.
constexpr unsigned kOverlayNestingMax = 4;

uint64_t number(std::string_view text) {
    uint64_t value = 0;
    std::from_chars(text.data(), text.data() + text.size(), value);
    return value;
}

std::vector<std::string_view> words(std::string_view line) {
    std::vector<std::string_view> out;
    while (!line.empty()) {
        const size_t end = std::min(line.find(' '), line.size());
        if (end > 0) out.push_back(line.substr(0, end));
        line.remove_prefix(std::min(end + 1, line.size()));
    }
    return out;
}

// The value of name=... in a comma-separated list; a comma in a value is written "\,".
std::string option(std::string_view options, std::string_view name) {
    size_t start = 0;
    while (start <= options.size()) {
        size_t end = start;
        while (end < options.size() && options[end] != ',') {
            end += options[end] == '\\' && end + 1 < options.size() ? 2 : 1;
        }
        const std::string_view one = options.substr(start, end - start);
        if (one.size() > name.size() && one.starts_with(name) && one[name.size()] == '=') {
            return std::string(one.substr(name.size() + 1));
        }
        start = end + 1;
    }
    return {};
}

uint64_t mount_id_of(const std::filesystem::path& path, int& err) {
    struct statx st {};
    err = 0;
    if (::statx(AT_FDCWD, path.c_str(), AT_NO_AUTOMOUNT, STATX_MNT_ID, &st) != 0) {
        err = errno;
        return 0;
    }
    return st.stx_mask & STATX_MNT_ID ? st.stx_mnt_id : 0;
}

std::vector<dev_t> btrfs_devices(const Mount& mount) {
    std::vector<dev_t> out;
    if (auto fd = open_file(mount.mount_point, O_RDONLY | O_NONBLOCK)) {
        btrfs_ioctl_fs_info_args info{};
        if (::ioctl(fd->get(), BTRFS_IOC_FS_INFO, &info) == 0) {
            Uuid id;
            std::memcpy(id.bytes.data(), info.fsid, id.bytes.size());
            std::error_code ignored;
            const std::filesystem::path dir = "/sys/fs/btrfs/" + to_string(id) + "/devices";
            for (const auto& entry : std::filesystem::directory_iterator(dir, ignored)) {
                if (dev_t dev = parse_dev(read_sysfs(entry.path() / "dev"))) out.push_back(dev);
            }
        }
    }
    struct stat st {};
    if (out.empty() && ::stat(mount.source.c_str(), &st) == 0 && S_ISBLK(st.st_mode)) {
        out.push_back(st.st_rdev);
    }
    return out;
}

}  // namespace

std::string unescape_octal(std::string_view text) {
    std::string out;
    for (size_t i = 0; i < text.size(); ++i) {
        const auto digit = [&](size_t at) {
            return at < text.size() && text[at] >= '0' && text[at] <= '7';
        };
        if (text[i] == '\\' && digit(i + 1) && digit(i + 2) && digit(i + 3)) {
            out += char((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
            i += 3;
        } else {
            out += text[i];
        }
    }
    return out;
}

std::string read_sysfs(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    std::string text;
    if (file) {
        text.resize(4096);
        file.read(text.data(), std::streamsize(text.size()));
        text.resize(size_t(file.gcount()));
    }
    while (!text.empty() && text.back() == '\n') text.pop_back();
    return text;
}

dev_t parse_dev(std::string_view text) {
    const size_t colon = text.find(':');
    if (colon == std::string_view::npos) return 0;
    return makedev(unsigned(number(text.substr(0, colon))),
                   unsigned(number(text.substr(colon + 1))));
}

bool Mount::superblock_read_only() const {
    const std::string_view options = super_options;
    return options == "ro" || options.starts_with("ro,");
}

Mounts Mounts::parse(std::string_view mountinfo) {
    Mounts mounts;
    while (!mountinfo.empty()) {
        const size_t end = std::min(mountinfo.find('\n'), mountinfo.size());
        const auto field = words(mountinfo.substr(0, end));
        mountinfo.remove_prefix(std::min(end + 1, mountinfo.size()));
        // id parent major:minor root mount_point options [optional...] - type source super_options
        size_t dash = 6;
        while (dash < field.size() && field[dash] != "-") ++dash;
        if (dash + 2 >= field.size()) continue;
        Mount mount;
        mount.id = number(field[0]);
        mount.device = parse_dev(field[2]);
        mount.root = unescape_octal(field[3]);
        mount.mount_point = unescape_octal(field[4]);
        mount.type = field[dash + 1];
        // An empty source leaves two blanks, and so one field fewer.
        const bool has_source = dash + 3 < field.size();
        if (has_source) mount.source = unescape_octal(field[dash + 2]);
        mount.super_options = unescape_octal(field[dash + (has_source ? 3 : 2)]);
        mounts.mounts_.push_back(std::move(mount));
    }
    return mounts;
}

Result<Mounts> Mounts::read() {
    std::ifstream file("/proc/self/mountinfo", std::ios::binary);
    std::stringstream text;
    text << file.rdbuf();
    if (!file || text.str().size() > kMountinfoBytesMax) {
        return fail(ErrorKind::operator_needed,
                    "read /proc/self/mountinfo: not readable or over {} bytes; is /proc mounted?",
                    kMountinfoBytesMax);
    }
    return parse(text.str());
}

const Mount* Mounts::holding(const std::filesystem::path& path) const {
    std::error_code ignored;
    std::filesystem::path at = std::filesystem::weakly_canonical(path, ignored);
    if (at.empty()) at = std::filesystem::absolute(path, ignored);
    for (;;) {
        int err = 0;
        const uint64_t id = mount_id_of(at, err);
        if (err == 0) {
            if (id != 0) {
                for (const Mount& mount : mounts_) {
                    if (mount.id == id) return &mount;
                }
                return nullptr;
            }
            break;  // a kernel before 5.8
        }
        if (!at.has_relative_path()) return nullptr;
        at = at.parent_path();
    }
    // The longest mount point that is a prefix; the last of equals, as it lies on top.
    const Mount* best = nullptr;
    for (const Mount& mount : mounts_) {
        const std::string& point = mount.mount_point;
        const bool prefix =
            point == "/" ||
            (at.native().starts_with(point) &&
             (at.native().size() == point.size() || at.native()[point.size()] == '/'));
        if (prefix && (!best || point.size() >= best->mount_point.size())) best = &mount;
    }
    return best;
}

bool Mounts::reachable(const Mount& mount) {
    int err = 0;
    const uint64_t id = mount_id_of(mount.mount_point, err);
    return err == 0 && (id == 0 || id == mount.id);
}

std::vector<dev_t> Mounts::devices_of(const Mount& mount) const { return devices_of(mount, 0); }

std::vector<dev_t> Mounts::devices_of(const Mount& mount, unsigned nesting) const {
    if (major(mount.device) != 0) return {mount.device};
    if (mount.type == "btrfs") return btrfs_devices(mount);
    if (mount.type == "overlay" && nesting < kOverlayNestingMax) {
        const std::string upper = option(mount.super_options, "upperdir");
        const Mount* below = upper.empty() ? nullptr : holding(upper);
        if (below && below != &mount) return devices_of(*below, nesting + 1);
    }
    return {};
}

}  // namespace herald::agent
