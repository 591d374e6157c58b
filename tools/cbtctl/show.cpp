// SPDX-License-Identifier: Apache-2.0
// list, status and map: what the replicator knows, for a person or as JSON.
#include <fmt/chrono.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <ctime>

#include "herald/limits.h"
#include "tools/cbtctl/commands.h"
#include "user/base/output.h"
#include "user/base/terminal.h"

namespace herald::cbtctl {
namespace {

using nlohmann::json;
constexpr auto kAnswer = std::chrono::seconds(10);

std::string seconds_text(const json& from, const char* name) {
    if (!has(from, name)) return "-";
    return human_duration(std::chrono::nanoseconds(int64_t(real(from, name) * 1e9)));
}

// Nothing while it is not known.
std::string left_text(const json& sync) {
    if (!has(sync, "eta_s")) return {};
    const double left = real(sync, "eta_s");
    if (left < 1) return ", less than 1 s left";
    return fmt::format(", {} left", human_duration(std::chrono::seconds(int64_t(left))));
}

std::string ms_text(double ms) {
    return human_duration(std::chrono::nanoseconds(int64_t(ms * 1e6)));
}

uint64_t dirty_bytes(const json& disk) {
    return (number(disk, "live_blocks") + number(disk, "todo_blocks") +
            number(disk, "in_flight_blocks")) *
           HERALD_BLOCK_BYTES;
}

std::string point_text(const json& disk) {
    const auto point = disk.find("last_point");
    if (point == disk.end() || !point->is_object()) return "-";
    return time_text(number(*point, "time_ns"));
}

void line(const char* name, const std::string& value) {
    print_out("  {:<16}{}\n", name, value.empty() ? "-" : value);
}

// What a bar's cell shows, from clean to all dirty.
char shade(double share) {
    if (share <= 0) return '.';
    if (share < 0.25) return '-';
    if (share < 0.75) return '+';
    return '#';
}

}  // namespace

uint64_t number(const json& from, const char* name) {
    const auto found = from.find(name);
    if (found == from.end() || !found->is_number()) return 0;
    if (found->is_number_float()) return uint64_t(std::max(0.0, found->get<double>()));
    if (found->is_number_unsigned()) return found->get<uint64_t>();
    return uint64_t(std::max<int64_t>(0, found->get<int64_t>()));
}

double real(const json& from, const char* name) {
    const auto found = from.find(name);
    return found != from.end() && found->is_number() ? found->get<double>() : 0;
}

std::string text(const json& from, const char* name) {
    const auto found = from.find(name);
    return found != from.end() && found->is_string() ? found->get<std::string>() : std::string();
}

bool has(const json& from, const char* name) {
    const auto found = from.find(name);
    return found != from.end() && !found->is_null();
}

std::string time_text(uint64_t time_ns) {
    const auto seconds = std::time_t(time_ns / 1'000'000'000);
    return fmt::format("{:%Y-%m-%d %H:%M:%S}", fmt::localtime(seconds));
}

std::string state_text(const json& disk) {
    std::string state = text(disk, "state");
    const auto sync = disk.find("sync");
    if (sync != disk.end() && sync->is_object() && number(*sync, "total_bytes") > 0) {
        const double share = real(*sync, "done_bytes") / real(*sync, "total_bytes");
        state += fmt::format(" {:.0f} %", std::floor(share * 100));
    }
    return state;
}

void print_json(const json& value) {
    print_out("{}\n", value.dump(2, ' ', false, json::error_handler_t::replace));
}

int report(const Error& error) {
    print_err("cbtctl: {}\n", error.message);
    return kFailed;
}

Result<json> ask(const Context& context, const json& request, std::chrono::milliseconds timeout,
                 int& exit) {
    exit = kNoReplicator;
    auto client = agent::ControlClient::connect(context.socket);
    if (!client) return pass(client);
    exit = kFailed;
    return client->request(request, timeout);
}

int list(const Context& context) {
    int exit = kDone;
    auto answer = ask(context, {{"op", "list"}}, kAnswer, exit);
    if (!answer) return report(answer.error()), exit;
    if (context.json) return print_json(*answer), kDone;
    const json& disks = (*answer)["disks"];
    for (const json& disk : answer->value("missing", json::array())) {
        print_out("{}: not protected: {}\n  what to do: {}\n\n", text(disk, "path"),
                  text(disk, "cause"), text(disk, "remedy"));
    }
    if (!disks.is_array() || disks.empty()) {
        print_out("No disk is protected. Protect one with: cbtctl protect /dev/DISK\n");
        return kDone;
    }
    Table table({"DISK", ">SIZE", "TRACKER", "STATE", ">RPO", ">BACKLOG", ">DIRTY", "LAST POINT"});
    for (const json& disk : disks) {
        table.add({text(disk, "path"), human_bytes(number(disk, "bytes")), text(disk, "tracker"),
                   state_text(disk), seconds_text(disk, "rpo_s"),
                   seconds_text(disk, "backlog_age_s"), human_bytes(dirty_bytes(disk)),
                   point_text(disk)});
    }
    print_text(stdout, table.text());
    for (const json& disk : disks) {
        if (text(disk, "cause").empty()) continue;
        print_out("\n{}: {}\n", text(disk, "path"), text(disk, "cause"));
        if (!text(disk, "remedy").empty()) print_out("  what to do: {}\n", text(disk, "remedy"));
    }
    return kDone;
}

int status(const Context& context, const std::string& name) {
    int exit = kDone;
    auto answer = ask(context, {{"op", "status"}, {"disk", name}}, kAnswer, exit);
    if (!answer) return report(answer.error()), exit;
    if (context.json) return print_json(*answer), kDone;
    const json& disk = *answer;
    print_out("{}  {}\n", text(disk, "path"), state_text(disk));
    if (!text(disk, "cause").empty()) line("cause", text(disk, "cause"));
    if (!text(disk, "remedy").empty()) line("what to do", text(disk, "remedy"));
    line("id", text(disk, "disk"));
    line("identity", text(disk, "identity"));
    line("size", human_bytes(number(disk, "bytes")));
    line("tracker", text(disk, "tracker"));
    line("I/O engine", text(disk, "io_engine"));
    line("RPO", seconds_text(disk, "rpo_s") +
                    (has(disk, "rpo_s") ? "" : "  (no moment can be restored yet)"));
    line("backlog age", seconds_text(disk, "backlog_age_s"));
    if (const auto sync = disk.find("sync"); sync != disk.end() && sync->is_object()) {
        line("sync", fmt::format("{} of {}, {}/s{}", human_bytes(number(*sync, "done_bytes")),
                                 human_bytes(number(*sync, "total_bytes")),
                                 human_bytes(number(*sync, "rate_bytes_s")), left_text(*sync)));
    }
    const auto block_bytes = [&](const char* field) {
        return human_bytes(number(disk, field) * HERALD_BLOCK_BYTES);
    };
    line("dirty", fmt::format("{} to do, {} in flight, {} live", block_bytes("todo_blocks"),
                              block_bytes("in_flight_blocks"), block_bytes("live_blocks")));
    line("stream",
         fmt::format("epoch {}, head {}, received {}, stored {}", number(disk, "epoch"),
                     number(disk, "head"), number(disk, "received"), number(disk, "stored")));
    line("traffic", fmt::format("read {}, sent {} (before compression {})",
                                human_bytes(number(disk, "read_bytes")),
                                human_bytes(number(disk, "sent_bytes")),
                                human_bytes(number(disk, "raw_bytes"))));
    line("frozen in all", ms_text(real(disk, "frozen_ms_total")));
    if (const auto point = disk.find("last_point"); point != disk.end() && point->is_object()) {
        line("last point", fmt::format("{}  {}  {}  frozen {}",
                                       time_text(number(*point, "time_ns")), text(*point, "id"),
                                       text(*point, "name"), ms_text(real(*point, "frozen_ms"))));
        for (const json& item : point->value("not_frozen", json::array())) {
            if (item.is_string()) line("  not frozen", item.get<std::string>());
        }
    }
    if (const auto c = disk.find("counters"); c != disk.end() && c->is_object()) {
        line("tracker saw",
             fmt::format("{} submissions, {} completions, {} missed events, {} writes open",
                         number(*c, "submissions"), number(*c, "completions"),
                         number(*c, "missed_events"), number(*c, "open_extents")));
    }
    return kDone;
}

int map(const Context& context, const std::string& name, uint64_t runs_max) {
    int exit = kDone;
    // What the driver tracks it knows best, also with no replicator.
    const auto driver = driver_map(context, name, runs_max);
    auto answer = driver ? Result<json>(*driver)
                         : ask(context, {{"op", "map"}, {"disk", name}, {"runs_max", runs_max}},
                               kAnswer, exit);
    if (!answer) return report(answer.error()), exit;
    if (context.json) return print_json(*answer), kDone;
    const uint64_t blocks = number(*answer, "blocks");
    const uint64_t block_bytes = number(*answer, "block_bytes");
    const json& runs = (*answer)["runs"];
    if (blocks == 0 || !runs.is_array()) {
        return report({ErrorKind::corrupt, "the replicator's map makes no sense", 0});
    }
    // Each cell is an equal share of the disk; a run counts in each cell by how much it covers.
    const uint64_t columns = terminal_columns(stdout);
    const uint64_t cells = std::min(blocks, columns > 4 ? columns - 2 : 2);
    std::vector<double> covered(cells, 0);
    const double blocks_per_cell = double(blocks) / double(cells);
    uint64_t dirty = 0;
    for (const json& run : runs) {
        if (!run.is_array() || run.size() != 2 || !run[0].is_number_unsigned() ||
            !run[1].is_number_unsigned()) {
            continue;
        }
        const uint64_t first = std::min(run[0].get<uint64_t>(), blocks);
        const uint64_t count = std::min(run[1].get<uint64_t>(), blocks - first);
        dirty += count;
        const double end = double(first + count);
        for (double at = double(first); at < end;) {
            const auto cell = std::min(uint64_t(at / blocks_per_cell), cells - 1);
            // The last cell takes what rounding leaves.
            const double upto =
                cell == cells - 1 ? end : std::min(end, double(cell + 1) * blocks_per_cell);
            // Rounding must not stop the walk.
            if (upto <= at) {
                at = std::nextafter(at, end);
                continue;
            }
            covered[cell] += upto - at;
            at = upto;
        }
    }
    std::string bar;
    for (double share : covered) bar += shade(share / blocks_per_cell);
    print_out("{} of {} is dirty ({:.1f} %), in {} runs\n", human_bytes(dirty * block_bytes),
              human_bytes(blocks * block_bytes), 100.0 * double(dirty) / double(blocks),
              runs.size());
    print_out("[{}]\n", bar);
    print_out(" each sign is {}:  . clean  - some  + half  # most or all\n",
              human_bytes(uint64_t(blocks_per_cell * double(block_bytes))));
    if (!driver) {
        print_out(" to do {}, in flight {}, live {}\n",
                  human_bytes(number(*answer, "todo_blocks") * block_bytes),
                  human_bytes(number(*answer, "in_flight_blocks") * block_bytes),
                  human_bytes(number(*answer, "live_blocks") * block_bytes));
    }
    const auto truncated = answer->find("truncated");
    if (truncated != answer->end() && *truncated == true) {
        print_out(" there are more runs than were asked for: use --runs-max\n");
    }
    return kDone;
}

}  // namespace herald::cbtctl
