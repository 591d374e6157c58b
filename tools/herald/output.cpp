// SPDX-License-Identifier: Apache-2.0
#include "tools/herald/output.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "tools/herald/select.h"
#include "tools/herald/time_text.h"
#include "user/base/terminal.h"

namespace herald::cli {

namespace {

using Json = nlohmann::ordered_json;

// Names come from other machines: bytes that are not UTF-8 must not stop the listing.
std::string dump(const Json& json) {
    return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

// A name may hold anything; a terminal must not obey it.
std::string printable(std::string_view text) {
    std::string result(text);
    for (char& c : result)
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
    return result;
}

std::string age_of(uint64_t time_ns, uint64_t now_ns) {
    return human_duration(std::chrono::nanoseconds(now_ns > time_ns ? now_ns - time_ns : 0));
}

// By the server's own count: this host's clock may differ.
std::string heard_text(const wire::DiskInfo& disk) {
    if (!disk.last_heard_ns) return "not yet";
    return human_duration(std::chrono::milliseconds(
               std::min<uint64_t>(disk.unheard_ms, INT64_MAX / 1'000'000))) +
           " ago";
}

Json time_json(uint64_t time_ns) { return time_ns ? Json(rfc3339_time(time_ns)) : Json(nullptr); }

}  // namespace

std::string ratio_text(uint64_t raw_bytes, uint64_t sent_bytes) {
    if (!raw_bytes || !sent_bytes) return "-";
    return fmt::format("{:.1f} : 1", double(raw_bytes) / double(sent_bytes));
}

std::string disks_table(std::span<const wire::DiskInfo> disks, uint64_t now_ns) {
    if (disks.empty())
        return "The server holds no disk yet; 'cbtctl protect DISK' on a machine adds one.\n";
    Table table(
        {"DISK", "NAME", ">SIZE", ">STORED", ">POINTS", ">NEWEST POINT", ">LAST HEARD", "STATE"});
    const size_t id_length = short_id_length(disks);
    std::string causes;
    for (const auto& disk : disks) {
        const std::string id = to_string(disk.disk).substr(0, id_length);
        table.add({id, printable(disk.name), human_bytes(disk.disk_bytes),
                   human_bytes(disk.stored_bytes), fmt::format("{}", disk.points),
                   disk.newest_point_ns ? age_of(disk.newest_point_ns, now_ns) + " ago" : "none",
                   heard_text(disk), printable(disk.state)});
        if (!disk.cause.empty()) causes += fmt::format("{}: {}\n", id, printable(disk.cause));
    }
    return table.text() + causes;
}

std::string disks_json(std::span<const wire::DiskInfo> disks) {
    Json list = Json::array();
    for (const auto& disk : disks)
        list.push_back({{"disk", to_string(disk.disk)},
                        {"machine", to_string(disk.machine)},
                        {"name", disk.name},
                        {"identity", disk.identity},
                        {"disk_bytes", disk.disk_bytes},
                        {"epoch", disk.epoch},
                        {"head", disk.head},
                        {"segments", disk.segments},
                        {"stored_bytes", disk.stored_bytes},
                        {"points", disk.points},
                        {"newest_point_ns", disk.newest_point_ns},
                        {"newest_point", time_json(disk.newest_point_ns)},
                        {"last_heard_ns", disk.last_heard_ns},
                        {"last_heard", time_json(disk.last_heard_ns)},
                        {"unheard_ms", disk.unheard_ms},
                        {"state", disk.state},
                        {"cause", disk.cause}});
    return dump(Json{{"disks", list}});
}

std::string points_table(const wire::DiskInfo& disk, std::span<const wire::PointInfo> points,
                         uint64_t now_ns) {
    const std::string title = fmt::format("{}  {}  {}\n", to_string(disk.disk),
                                          printable(disk.name), human_bytes(disk.disk_bytes));
    const bool any = std::ranges::any_of(
        points, [](const wire::PointInfo& point) { return point.refusal.empty(); });
    const std::string none = any ? ""
                                 : "No recovery point yet" +
                                       (disk.cause.empty() ? "" : ": " + printable(disk.cause)) +
                                       ".\n";
    if (points.empty()) return title + none;
    Table table({"POINT", "TIME", ">AGE", "CONSISTENCY", ">SENT", ">RATIO", "NAME"});
    const size_t id_length = short_id_length(points);
    std::string refused;
    for (const auto& point : points) {
        const std::string id = to_string(point.id).substr(0, id_length);
        const bool good = point.refusal.empty();
        table.add({id, local_time(point.time_ns), age_of(point.time_ns, now_ns),
                   good ? printable(point.consistency) : "refused",
                   good ? human_bytes(point.sent_bytes) : "-",
                   good ? ratio_text(point.raw_bytes, point.sent_bytes) : "-",
                   printable(point.name)});
        if (!good)
            refused += fmt::format("{} is no recovery point: {}\n", id, printable(point.refusal));
    }
    return title + table.text() + none + refused;
}

std::string points_json(const wire::DiskInfo& disk, std::span<const wire::PointInfo> points) {
    Json list = Json::array();
    for (const auto& point : points)
        list.push_back({{"id", to_string(point.id)},
                        {"position", point.position},
                        {"time_ns", point.time_ns},
                        {"time", time_json(point.time_ns)},
                        {"kind", point.kind},
                        {"consistency", point.consistency},
                        {"name", point.name},
                        {"disk_bytes", point.disk_bytes},
                        {"sent_bytes", point.sent_bytes},
                        {"raw_bytes", point.raw_bytes},
                        {"refusal", point.refusal}});
    return dump(Json{{"disk", to_string(disk.disk)}, {"name", disk.name}, {"points", list}});
}

std::string status_text(const std::string& server, const wire::ServerStatus& status) {
    const auto space = [](const std::string& state, uint64_t free, uint64_t total) {
        return fmt::format("{}: {} of {} free ({} %)", printable(state), human_bytes(free),
                           human_bytes(total), total ? free * 100 / total : 0);
    };
    return fmt::format(
        "server       {} (version {})\n"
        "store        {}\n"
        "catalog      {}\n"
        "disks        {}\n"
        "connections  {}\n"
        "requests     {}\n",
        server, printable(status.version),
        space(status.store_state, status.free_bytes, status.total_bytes),
        space(status.catalog_state, status.catalog_free_bytes, status.catalog_total_bytes),
        status.disks, status.connections, status.requests);
}

std::string status_json(const std::string& server, const wire::ServerStatus& status) {
    return dump(Json{{"server", server},
                     {"version", status.version},
                     {"free_bytes", status.free_bytes},
                     {"total_bytes", status.total_bytes},
                     {"store_state", status.store_state},
                     {"catalog_free_bytes", status.catalog_free_bytes},
                     {"catalog_total_bytes", status.catalog_total_bytes},
                     {"catalog_state", status.catalog_state},
                     {"disks", status.disks},
                     {"connections", status.connections},
                     {"requests", status.requests}});
}

}  // namespace herald::cli
