// SPDX-License-Identifier: Apache-2.0
#include "user/tracker/block_device.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>

#include "herald/limits.h"
#include "user/base/file.h"

namespace herald::tracker {
namespace fs = std::filesystem;
namespace {

// sysfs files say their size is a page; only reading tells.
Result<std::string> read_text(const fs::path& path) {
    auto fd = open_file(path, O_RDONLY);
    if (!fd) return pass(fd);
    char text[4096];
    const ssize_t n = ::read(fd->get(), text, sizeof text);
    if (n < 0) return fail_errno(errno, fmt::format("read {}", path.native()));
    std::string_view view(text, size_t(n));
    while (!view.empty() && (view.back() == '\n' || view.back() == ' ')) view.remove_suffix(1);
    return std::string(view);
}

Result<uint64_t> read_number(const fs::path& path) {
    auto text = read_text(path);
    if (!text) return pass(text);
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
    if (error != std::errc() || end != text->data() + text->size()) {
        return fail(ErrorKind::operator_needed, "{} holds \"{}\", not a number", path.native(),
                    *text);
    }
    return value;
}

bool is_there(const fs::path& path) {
    std::error_code ignored;
    return fs::exists(path, ignored);
}

// `sysfs`: the device's own folder, or a partition's.
Result<std::optional<uint64_t>> count_in_flight(const BlockDevice& device, const fs::path& sysfs) {
    // The kernel counts only requests that it accounts for.
    auto accounted = read_text(device.sysfs / "queue/iostats");
    if (!accounted) return pass(accounted);
    if (*accounted != "1") return std::optional<uint64_t>();
    auto text = read_text(sysfs / "inflight");
    if (!text) return pass(text);
    unsigned long long reads = 0, writes = 0;
    if (std::sscanf(text->c_str(), "%llu %llu", &reads, &writes) != 2) {
        return fail(ErrorKind::operator_needed, "{}/inflight holds \"{}\"", sysfs.native(), *text);
    }
    return std::optional<uint64_t>(writes);
}

}  // namespace

Result<BlockDevice> inspect_block_device(const fs::path& path) {
    struct stat st {};
    if (::stat(path.c_str(), &st) != 0) {
        return fail_errno(errno, fmt::format("look at {}", path.native()));
    }
    if (!S_ISBLK(st.st_mode)) {
        return fail(ErrorKind::operator_needed, "{} is not a block device", path.native());
    }
    BlockDevice device;
    device.dev = st.st_rdev;
    std::error_code error;
    device.sysfs = fs::canonical(
        fmt::format("/sys/dev/block/{}:{}", major(st.st_rdev), minor(st.st_rdev)), error);
    if (error) {
        return fail(ErrorKind::operator_needed,
                    "{} has no entry in /sys/dev/block: nothing is attached to it", path.native());
    }
    device.name = device.sysfs.filename().native();
    if (is_there(device.sysfs / "partition")) {
        return fail(ErrorKind::operator_needed, "{} is a partition: name the whole disk, /dev/{}",
                    path.native(), device.sysfs.parent_path().filename().native());
    }
    return look_again(device);
}

Result<BlockDevice> look_again(const BlockDevice& before) {
    BlockDevice device = before;
    auto sectors = read_number(device.sysfs / "size");
    if (!sectors) return pass(sectors);
    device.bytes = *sectors * HERALD_SECTOR_BYTES;
    auto diskseq = read_number(device.sysfs / "diskseq");
    if (!diskseq) return pass(diskseq, "this kernel does not number its disks (Linux 5.15 does)");
    device.diskseq = *diskseq;
    return device;
}

Result<void> check_trackable(const BlockDevice& device) {
    const auto refuse = [&](std::string_view why) -> Result<void> {
        return fail(ErrorKind::operator_needed,
                    "/dev/{} cannot be tracked without a kernel module: {}", device.name, why);
    };
    if (device.bytes == 0) return refuse("it is empty; nothing is attached to it");
    if (device.bytes > HERALD_DISK_BYTES_MAX) return refuse("it is larger than 64 TiB");
    if (is_there(device.sysfs / "dm")) {
        return refuse("it is a device-mapper device; protect the disks below it");
    }
    if (is_there(device.sysfs / "md")) {
        return refuse("it is an md array; protect its member disks");
    }
    if (!is_there(device.sysfs / "mq")) {
        if (device.name.starts_with("nvme")) {
            return refuse("it is the head of an NVMe multipath device, which has no request queue");
        }
        return refuse(
            "its driver serves no requests (zram, pmem, brd and the like), so its writes pass no "
            "request tracepoint");
    }
    // The same disk has other names, and what is written by those passes other queues.
    std::error_code ignored;
    for (const auto& holder : fs::directory_iterator(device.sysfs / "holders", ignored)) {
        auto uuid = read_text(holder.path() / "dm/uuid");
        if (uuid && uuid->starts_with("mpath-")) {
            return refuse(
                "it is one path of a multipath device; writes by the others would not "
                "be seen");
        }
    }
    auto zoned = read_text(device.sysfs / "queue/zoned");
    if (zoned && *zoned != "none") return refuse("it is a zoned device");
    auto dax = read_text(device.sysfs / "queue/dax");
    if (dax && *dax == "1") return refuse("it is written directly in memory (DAX)");
    return {};
}

Result<uint64_t> requests_max(const BlockDevice& device) {
    auto per_queue = read_number(device.sysfs / "queue/nr_requests");
    if (!per_queue) return pass(per_queue);
    uint64_t total = 0;
    std::error_code error;
    for (const auto& queue : fs::directory_iterator(device.sysfs / "mq", error)) {
        auto tags = read_number(queue.path() / "nr_tags");
        if (!tags) return pass(tags);
        // The driver's requests, and a scheduler's, which replace them while one is set; changing
        // nr_requests may double the latter.
        total += *tags + 2 * *per_queue;
    }
    if (error || total == 0) {
        return fail(ErrorKind::operator_needed, "/dev/{} has no request queues", device.name);
    }
    return total;
}

Result<std::optional<uint64_t>> writes_in_flight(const BlockDevice& device) {
    return count_in_flight(device, device.sysfs);
}

Result<std::optional<uint64_t>> writes_in_flight(const BlockDevice& device, dev_t part) {
    std::error_code error;
    const fs::path sysfs =
        fs::canonical(fmt::format("/sys/dev/block/{}:{}", major(part), minor(part)), error);
    if (error || sysfs.parent_path() != device.sysfs || !is_there(sysfs / "partition")) {
        return std::optional<uint64_t>();
    }
    auto count = count_in_flight(device, sysfs);
    // It went away while we looked.
    if (!count && !is_there(sysfs / "partition")) return std::optional<uint64_t>();
    return count;
}

}  // namespace herald::tracker
