// SPDX-License-Identifier: Apache-2.0
// What cbtctl asks the driver dm_cbt itself: stats, watch, the dirty map, one tag on several disks.
// Works without a replicator.
#include <algorithm>
#include <array>
#include <csignal>
#include <thread>

#include "herald/limits.h"
#include "tools/cbtctl/commands.h"
#include "tools/cbtctl/mapper.h"
#include "user/base/output.h"
#include "user/base/terminal.h"
#include "user/base/uuid.h"
#include "user/tracker/cbt_device.h"

namespace herald::cbtctl {
namespace {

using nlohmann::json;
using tracker::CbtDevice;

bool same(herald_cbt_disk_abi one, herald_cbt_disk_abi other) {
    return one.major == other.major && one.minor == other.minor;
}

struct Tracked {
    CbtDevice driver;
    herald_cbt_row_abi row;
};

Result<herald_cbt_row_abi> row_of(CbtDevice& driver, const std::string& path) {
    auto number = device_number(path);
    if (!number) return pass(number);
    auto rows = driver.list();
    if (!rows) return pass(rows);
    for (const herald_cbt_row_abi& row : *rows) {
        if (same(row.disk, *number)) return row;
    }
    return fail(ErrorKind::operator_needed,
                "{} is not tracked by the driver dm_cbt: cbtctl protect {} --tracker dm_cbt", path,
                path);
}

Result<Tracked> find(const Context& context, const std::string& disk) {
    auto driver = CbtDevice::open();
    if (!driver) return pass(driver);
    auto row = row_of(*driver, path_of(context, disk));
    if (!row) return pass(row);
    return Tracked{std::move(*driver), *row};
}

const char* persistence_name(uint32_t persistence) {
    switch (persistence) {
        case HERALD_CBT_PERSISTENCE_NONE:
            return "none";
        case HERALD_CBT_PERSISTENCE_ACTIVE:
            return "active";
        case HERALD_CBT_PERSISTENCE_GIVEN_UP:
            return "given up";
    }
    return "unknown";
}

json causes_of(const herald_cbt_stats_abi& stats) {
    json out = json::array();
    for (uint32_t cause = 1; cause < std::size(stats.causes); ++cause) {
        if (stats.causes[cause] == 0) continue;
        out.push_back({{"cause", tracker::cbt_cause_name(cause)}, {"times", stats.causes[cause]}});
    }
    return out;
}

// Bucket n holds what took less than 2^(n + 8) ns; the share of all that took less.
std::string capture_text(const herald_cbt_stats_abi& stats, double share) {
    uint64_t all = 0, below = 0;
    for (uint64_t count : stats.capture) all += count;
    for (size_t bucket = 0; all != 0 && bucket < std::size(stats.capture); ++bucket) {
        below += stats.capture[bucket];
        if (double(below) >= share * double(all)) {
            return human_duration(std::chrono::nanoseconds(1ll << (bucket + 8)));
        }
    }
    return "-";
}

json to_json(const std::string& disk, const herald_cbt_row_abi& row,
             const herald_cbt_stats_abi& stats) {
    return {
        {"disk", disk},
        {"device", tracker::to_string(row.disk)},
        {"origin", tracker::to_string(row.origin)},
        {"meta", row.meta.major == 0 ? json(nullptr) : json(tracker::to_string(row.meta))},
        {"sectors", row.sectors},
        {"mode", tracker::cbt_mode_name(row.mode)},
        {"mode_cause", tracker::cbt_cause_name(row.mode_cause)},
        {"owned", row.owned != 0},
        {"suspended", row.suspended != 0},
        {"gap", row.gap == 0 ? json(nullptr) : json(tracker::cbt_cause_name(row.gap))},
        {"persistence", persistence_name(row.persistence)},
        {"writes", stats.writes},
        {"written_bytes", stats.written_bytes},
        {"reads", stats.reads},
        {"flushes", stats.flushes},
        {"ranges", stats.ranges},
        {"parked_overlap", stats.parked_overlap},
        {"parked_hold", stats.parked_hold},
        {"parked_activity", stats.parked_activity},
        {"again", stats.again},
        {"aborted", stats.aborted},
        {"unresolved", stats.unresolved},
        {"mode_ns",
         {{"map", stats.mode_ns[0]}, {"extents", stats.mode_ns[1]}, {"ordered", stats.mode_ns[2]}}},
        {"sank", {{"map", stats.sank[0]}, {"extents", stats.sank[1]}}},
        {"causes", causes_of(stats)},
        {"slots_used", stats.slots_used},
        {"slots_used_max", stats.slots_used_max},
        {"payload_used", stats.payload_used},
        {"payload_used_max", stats.payload_used_max},
        {"oldest_unstored_ns", stats.oldest_unstored_ns},
        {"in_flight", stats.in_flight},
        {"meta_writes", stats.meta_writes},
        {"activity_hits", stats.activity_hits},
        {"activity_misses", stats.activity_misses},
        {"hot_regions", stats.hot_regions},
        {"held_ns_max", stats.held_ns_max},
        {"tags", stats.tags},
        {"capture", stats.capture}};
}

std::string age(uint64_t ns) { return human_duration(std::chrono::nanoseconds(int64_t(ns))); }

void line(const char* name, const std::string& value) { print_out("  {:<16}{}\n", name, value); }

void print_stats(const std::string& disk, const herald_cbt_row_abi& row,
                 const herald_cbt_stats_abi& stats) {
    print_out("{}  mode {} ({}){}{}\n", disk, tracker::cbt_mode_name(row.mode),
              tracker::cbt_cause_name(row.mode_cause), row.owned ? "" : ", no reader",
              row.suspended ? ", suspended" : "");
    line("gap", row.gap == 0 ? "none" : tracker::cbt_cause_name(row.gap));
    line("persistence",
         fmt::format("{}{}", persistence_name(row.persistence),
                     row.meta.major == 0
                         ? std::string()
                         : fmt::format(", meta device {}", tracker::to_string(row.meta))));
    line("writes",
         fmt::format("{} of {}; {} discards and the like, {} flushes, {} reads", stats.writes,
                     human_bytes(stats.written_bytes), stats.ranges, stats.flushes, stats.reads));
    line("in flight",
         fmt::format("{}; {} failed, {} hung", stats.in_flight, stats.aborted, stats.unresolved));
    line("ring", fmt::format("{} slots (at most {}), {} of data (at most {})", stats.slots_used,
                             stats.slots_used_max, human_bytes(stats.payload_used),
                             human_bytes(stats.payload_used_max)));
    line("oldest unstored", stats.oldest_unstored_ns == 0 ? "-" : age(stats.oldest_unstored_ns));
    line("time in mode", fmt::format("ordered {}, extents {}, map {}", age(stats.mode_ns[2]),
                                     age(stats.mode_ns[1]), age(stats.mode_ns[0])));
    line("sank", fmt::format("{} times to extents, {} times to map", stats.sank[1], stats.sank[0]));
    line("waited", fmt::format("{} for one they overlap, {} for a hold, {} for the activity log",
                               stats.parked_overlap, stats.parked_hold, stats.parked_activity));
    line("activity log",
         fmt::format("{} hits, {} misses, {} hot regions, {} writes to the meta device",
                     stats.activity_hits, stats.activity_misses, stats.hot_regions,
                     stats.meta_writes));
    line("capture", fmt::format("half below {}, 99 % below {}", capture_text(stats, 0.5),
                                capture_text(stats, 0.99)));
    line("tags", fmt::format("{}", stats.tags));
    for (const json& one : causes_of(stats)) {
        line("  happened", fmt::format("{} times: {}", number(one, "times"), text(one, "cause")));
    }
}

const char* result_name(uint32_t result) {
    switch (result) {
        case HERALD_CBT_LANDED:
            return "landed";
        case HERALD_CBT_DOWNGRADED:
            return "downgraded";
        case HERALD_CBT_REFUSED:
            return "refused";
    }
    return "unknown";
}

}  // namespace

int stats(const Context& context, const std::string& disk) {
    auto tracked = find(context, disk);
    if (!tracked) return report(tracked.error());
    auto said = tracked->driver.stats(tracked->row.disk);
    if (!said) return report(said.error());
    if (context.json) {
        print_json(to_json(disk, tracked->row, *said));
    } else {
        print_stats(disk, tracked->row, *said);
    }
    return kDone;
}

int watch(const Context& context, const std::string& disk, std::chrono::milliseconds every,
          uint64_t count) {
    auto tracked = find(context, disk);
    if (!tracked) return report(tracked.error());
    const std::string path = path_of(context, disk);
    auto before = tracked->driver.stats(tracked->row.disk);
    if (!before) return report(before.error());
    const double seconds = double(every.count()) / 1000;
    for (uint64_t number = 0; (count == 0 || number < count) && !output_failed(); ++number) {
        if (!context.json && number % 20 == 0) {
            print_out("{:<8} {:>10} {:>12} {:>9} {:>12} {:>10} {:>10}  {}\n", "MODE", "WRITES/S",
                      "BYTES/S", "SLOTS", "DATA", "UNSTORED", "IN FLIGHT", "CAUSE");
        }
        flush_out();
        std::this_thread::sleep_for(every);
        auto now = tracked->driver.stats(tracked->row.disk);
        if (!now) return report(now.error());
        auto row = row_of(tracked->driver, path);
        if (!row) return report(row.error());
        if (context.json) {
            // One object on each line.
            print_out("{}\n", to_json(disk, *row, *now).dump());
        } else {
            print_out(
                "{:<8} {:>10.0f} {:>12} {:>9} {:>12} {:>10} {:>10}  {}\n",
                tracker::cbt_mode_name(row->mode), double(now->writes - before->writes) / seconds,
                human_bytes(uint64_t(double(now->written_bytes - before->written_bytes) / seconds)),
                now->slots_used, human_bytes(now->payload_used),
                now->oldest_unstored_ns == 0 ? "-" : age(now->oldest_unstored_ns), now->in_flight,
                row->mode == HERALD_CBT_MODE_ORDERED ? ""
                                                     : tracker::cbt_cause_name(row->mode_cause));
        }
        before = now;
    }
    flush_out();
    return kDone;
}

std::optional<json> driver_map(const Context& context, const std::string& disk, uint64_t runs_max) {
    auto tracked = find(context, disk);
    if (!tracked) return std::nullopt;
    json runs = json::array();
    uint64_t dirty = 0;
    bool truncated = false;
    auto generation = tracked->driver.runs(tracked->row.disk, HERALD_CBT_BITMAP_BOTH,
                                           tracked->row.sectors, [&](tracker::BlockRun run) {
                                               dirty += run.count;
                                               truncated = truncated || runs.size() >= runs_max;
                                               if (!truncated)
                                                   runs.push_back({run.first, run.count});
                                           });
    if (!generation) return std::nullopt;
    const uint64_t bytes = tracked->row.sectors * HERALD_SECTOR_BYTES;
    return json{{"disk", disk},
                {"tracker", "dm_cbt"},
                {"blocks", (bytes + HERALD_BLOCK_BYTES - 1) / HERALD_BLOCK_BYTES},
                {"block_bytes", HERALD_BLOCK_BYTES},
                {"dirty_blocks", dirty},
                {"generation", *generation},
                {"runs", std::move(runs)},
                {"truncated", truncated}};
}

int tag_disks(const Context& context, const std::vector<std::string>& disks) {
    if (disks.size() > HERALD_CBT_DISKS_PER_CALL_MAX) {
        return report({ErrorKind::operator_needed,
                       fmt::format("{} disks: one tag is for at most {}", disks.size(),
                                   HERALD_CBT_DISKS_PER_CALL_MAX),
                       0});
    }
    auto driver = CbtDevice::open();
    if (!driver) return report(driver.error());
    std::vector<herald_cbt_disk_abi> numbers;
    for (const std::string& disk : disks) {
        auto row = row_of(*driver, path_of(context, disk));
        if (!row) return report(row.error());
        const bool twice = std::any_of(numbers.begin(), numbers.end(),
                                       [&](const auto& number) { return same(number, row->disk); });
        if (twice) {
            return report({ErrorKind::operator_needed, fmt::format("{} is named twice", disk), 0});
        }
        numbers.push_back(row->disk);
    }
    const Uuid id = Uuid::random();
    auto tagged = driver->tag(id, HERALD_CBT_TAG_ALL, numbers);
    if (!tagged) return report(tagged.error());
    json answers = json::array();
    bool landed = true;
    for (size_t index = 0; index < disks.size(); ++index) {
        const herald_cbt_answer_abi& answer = tagged->answers[index];
        landed = landed && answer.result == HERALD_CBT_LANDED;
        answers.push_back(
            {{"disk", disks[index]},
             {"result", result_name(answer.result)},
             {"cause",
              answer.cause == 0 ? json(nullptr) : json(tracker::cbt_cause_name(answer.cause))},
             {"slot", answer.slot}});
    }
    if (context.json) {
        print_json({{"ok", landed},
                    {"tag", to_string(id)},
                    {"time_ns", tagged->time_ns},
                    {"disks", answers}});
        return landed ? kDone : kFailed;
    }
    if (landed) {
        print_out("tag {}  {}: the same moment on {} disks\n", to_string(id),
                  time_text(tagged->time_ns), disks.size());
        return kDone;
    }
    print_err("cbtctl: no disk was tagged, because not all could be at the same moment:\n");
    for (const json& answer : answers) {
        print_err("  {}: {}{}{}\n", text(answer, "disk"), text(answer, "result"),
                  has(answer, "cause") ? ": " : "", text(answer, "cause"));
    }
    return kFailed;
}

}  // namespace herald::cbtctl
