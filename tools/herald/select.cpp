// SPDX-License-Identifier: Apache-2.0
#include "tools/herald/select.h"

#include <algorithm>
#include <cerrno>
#include <vector>

#include "tools/herald/time_text.h"

namespace herald::cli {

namespace {

// A message that names more than this is no longer read.
constexpr size_t kNamedMax = 12;
constexpr size_t kShortIdMin = 8;
constexpr size_t kIdBeginningMin = 4;

tl::unexpected<Error> refuse(int sys, std::string message) {
    return tl::unexpected<Error>(Error{ErrorKind::operator_needed, std::move(message), sys});
}

std::string lower(std::string_view text) {
    std::string result(text);
    for (char& c : result)
        if (c >= 'A' && c <= 'Z') c = char(c - 'A' + 'a');
    return result;
}

std::string line_of(const wire::DiskInfo& disk) {
    return fmt::format("  {}  {}  {}", to_string(disk.disk), disk.name, disk.identity);
}

std::string line_of(const wire::PointInfo& point) {
    return fmt::format("  {}  {}  {}", to_string(point.id), local_time(point.time_ns), point.name);
}

template <class T>
std::string lines_of(const std::vector<const T*>& items) {
    std::string text;
    for (size_t i = 0; i < std::min(items.size(), kNamedMax); ++i)
        text += "\n" + line_of(*items[i]);
    if (items.size() > kNamedMax) text += fmt::format("\n  and {} more", items.size() - kNamedMax);
    return text;
}

template <class T>
std::vector<const T*> all_of(std::span<const T> items) {
    std::vector<const T*> all;
    for (const T& item : items) all.push_back(&item);
    return all;
}

bool begins_id(const Uuid& id, const std::string& text) {
    return text.size() >= kIdBeginningMin && to_string(id).starts_with(text);
}

size_t shared_prefix(const std::string& a, const std::string& b) {
    return size_t(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}

size_t length_that_tells_apart(std::vector<std::string> ids) {
    std::sort(ids.begin(), ids.end());
    size_t length = kShortIdMin;
    for (size_t i = 1; i < ids.size(); ++i)
        length = std::max(length, shared_prefix(ids[i - 1], ids[i]) + 1);
    return std::min<size_t>(length, 36);
}

}  // namespace

Result<wire::DiskInfo> select_disk(std::span<const wire::DiskInfo> disks, std::string_view text) {
    const std::string id_text = lower(text);
    std::vector<const wire::DiskInfo*> fitting;
    for (const wire::DiskInfo& disk : disks) {
        const size_t on = disk.name.rfind(" on ");
        const bool named = disk.name == text || disk.identity == text ||
                           (on != std::string::npos && disk.name.substr(0, on) == text);
        if (to_string(disk.disk) == id_text) return disk;
        if (named || begins_id(disk.disk, id_text)) fitting.push_back(&disk);
    }
    if (fitting.size() == 1) return *fitting.front();
    if (!fitting.empty())
        return refuse(EINVAL, fmt::format("'{}' fits {} disks; name one by its id:{}", text,
                                          fitting.size(), lines_of(fitting)));
    if (disks.empty())
        return refuse(ENOENT, fmt::format("there is no disk '{}': the server holds no disk yet; "
                                          "protect one with 'cbtctl protect' on its machine",
                                          text));
    return refuse(ENOENT, fmt::format("there is no disk '{}'; the server holds:{}", text,
                                      lines_of(all_of(disks))));
}

Result<wire::PointInfo> select_point(std::span<const wire::PointInfo> points,
                                     const PointChoice& choice) {
    if (points.empty())
        return refuse(ENOENT,
                      "the disk has no recovery point yet; 'cbtctl tag DISK' on its machine makes "
                      "one once the initial sync is done");
    if (choice.latest) return points.back();
    if (choice.time_ns) {
        const wire::PointInfo* newest = nullptr;
        for (const wire::PointInfo& point : points)
            if (point.time_ns <= *choice.time_ns && (!newest || point.time_ns >= newest->time_ns))
                newest = &point;
        if (newest) return *newest;
        return refuse(ENOENT,
                      fmt::format("there is no point at or before {}; the oldest is {}, "
                                  "the newest {}",
                                  local_time(*choice.time_ns), local_time(points.front().time_ns),
                                  local_time(points.back().time_ns)));
    }
    const std::string id_text = lower(choice.id);
    std::vector<const wire::PointInfo*> fitting;
    for (const wire::PointInfo& point : points) {
        if (to_string(point.id) == id_text) return point;
        if (begins_id(point.id, id_text)) fitting.push_back(&point);
    }
    if (fitting.size() == 1) return *fitting.front();
    if (!fitting.empty())
        return refuse(EINVAL, fmt::format("'{}' fits {} points; give more of the id:{}", choice.id,
                                          fitting.size(), lines_of(fitting)));
    // The newest are what a person is most likely to want.
    auto all = all_of(points);
    std::reverse(all.begin(), all.end());
    return refuse(
        ENOENT, fmt::format("there is no point '{}'; the newest are:{}", choice.id, lines_of(all)));
}

size_t short_id_length(std::span<const wire::PointInfo> points) {
    std::vector<std::string> ids;
    for (const auto& point : points) ids.push_back(to_string(point.id));
    return length_that_tells_apart(std::move(ids));
}

size_t short_id_length(std::span<const wire::DiskInfo> disks) {
    std::vector<std::string> ids;
    for (const auto& disk : disks) ids.push_back(to_string(disk.disk));
    return length_that_tells_apart(std::move(ids));
}

}  // namespace herald::cli
