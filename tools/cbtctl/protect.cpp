// SPDX-License-Identifier: Apache-2.0
// protect and unprotect: the replicator takes a disk in or lets it go; a device-mapper volume also
// gets the driver's table, or its own back.
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <sstream>

#include "tools/cbtctl/commands.h"
#include "tools/cbtctl/table_swap.h"
#include "user/base/file.h"
#include "user/base/output.h"

namespace herald::cbtctl {
namespace {

using nlohmann::json;

// Stopping a disk's replication waits for what is under way.
constexpr auto kChange = std::chrono::seconds(60);
constexpr auto kAnswer = std::chrono::seconds(10);
constexpr char kDevice[] = "/dev/" HERALD_CBT_DEVICE;

int failed(const std::string& message) { return report({ErrorKind::operator_needed, message, 0}); }

std::optional<std::string> mapper_name_of(const std::string& path) {
    auto number = device_number(path);
    return number ? mapper_name(*number) : std::nullopt;
}

bool driver_is_there() {
    if (::access(kDevice, F_OK) == 0) return true;
    // What it says is not worth more than that the device is not there.
    (void)run_program({"modprobe", "dm_cbt"});
    return ::access(kDevice, F_OK) == 0;
}

// Whether the driver's table is what this disk gets; what is against it is printed, and the exit
// status in `exit`.
bool by_driver(const ProtectOptions& options, const std::optional<std::string>& name, int& exit) {
    exit = kDone;
    if (options.tracker == "ebpf") return false;
    if (!name && options.tracker == "dm_cbt") {
        exit = failed(fmt::format(
            "{} is not a device-mapper device, so that the driver dm_cbt cannot be put under it "
            "while it is in use: --tracker ebpf, or make it a logical volume",
            options.path));
        return false;
    }
    if (name && driver_is_there()) return true;
    if (name && options.tracker == "dm_cbt") {
        exit =
            failed(fmt::format("{} is not there: the module dm_cbt is not loaded, and "
                               "`modprobe dm_cbt` did not help",
                               kDevice));
    }
    return false;
}

json request_for(const std::string& path) {
    // The replicator has another working directory.
    std::error_code ignored;
    return {{"op", "protect"}, {"path", std::filesystem::absolute(path, ignored).native()}};
}

int by_replicator(const Context& context, const std::string& path, const json& extra) {
    int exit = kDone;
    const json request = request_for(path);
    auto answer = ask(context, request, kChange, exit);
    if (!answer) return report(answer.error()), exit;
    const std::string full = text(request, "path");
    if (context.json) {
        answer->update(extra);
        print_json(*answer);
    } else {
        print_out("{} is protected from now on; the initial sync: cbtctl status {} --wait-synced\n",
                  full, full);
    }
    return kDone;
}

}  // namespace

std::string path_of(const Context& context, const std::string& disk) {
    struct stat st {};
    if (::stat(disk.c_str(), &st) == 0) return disk;
    if (disk.find('/') == std::string::npos && ::stat(("/dev/" + disk).c_str(), &st) == 0) {
        return "/dev/" + disk;
    }
    int exit = kDone;
    auto answer = ask(context, {{"op", "status"}, {"disk", disk}}, kAnswer, exit);
    return answer && has(*answer, "path") ? text(*answer, "path") : disk;
}

int protect(const Context& context, const ProtectOptions& options) {
    const auto name = mapper_name_of(options.path);
    int exit = kDone;
    if (!by_driver(options, name, exit)) {
        if (exit != kDone) return exit;
        if (!options.meta.empty() || options.tracker_only) {
            return failed(fmt::format("{} would be tracked by eBPF, which has no {}", options.path,
                                      options.meta.empty()
                                          ? "tracker to put in place: leave out --tracker-only"
                                          : "meta device: leave out --meta"));
        }
        if (options.tracker == "auto" && !context.json) {
            print_err(
                "{}: tracked by eBPF: {}\n", options.path,
                name ? "the driver dm_cbt is not loaded" : "it is not a device-mapper device");
        }
        return by_replicator(context, options.path, {{"tracker", "ebpf"}});
    }
    if (!options.tracker_only) {
        auto answer = ask(context, {{"op", "list"}}, kAnswer, exit);
        if (!answer) return report(answer.error()), exit;
    }
    auto swapped = swap_in(*name, options.meta.empty() ? "-" : options.meta);
    if (!swapped) return report(swapped.error());
    const json extra = {{"tracker", "dm_cbt"}, {"changed", swapped->changed}};
    if (!context.json) {
        print_out("{} {} by the driver dm_cbt{}\n", options.path,
                  swapped->changed ? "is now tracked" : "was tracked already",
                  options.meta.empty() ? ", without a meta device: a restart costs a compare of "
                                         "the whole disk"
                                       : ", meta device " + options.meta);
    }
    if (options.tracker_only) {
        if (context.json) print_json(extra);
        return kDone;
    }
    exit = by_replicator(context, options.path, extra);
    if (exit == kDone || !swapped->changed) return exit;
    auto back = swap_out(*device_number(options.path), *name);
    if (!back) return report(back.error());
    print_err("cbtctl: {} has its own table again\n", options.path);
    return exit;
}

int assemble(const Context& context, const std::string& file) {
    auto bytes = read_file(file, 1u << 20);
    if (!bytes) return report(bytes.error());
    std::istringstream rows{std::string(as_text(*bytes))};
    json volumes = json::array();
    int exit = kDone;
    unsigned number = 0;
    for (std::string row; std::getline(rows, row);) {
        ++number;
        std::istringstream words(row.substr(0, row.find('#')));
        std::string path, meta, more;
        if (!(words >> path)) continue;
        if (!(words >> meta) || words >> more) {
            exit = failed(fmt::format(
                "{}, line {}: a volume and its meta device, or -, is expected", file, number));
            continue;
        }
        const auto name = mapper_name_of(path);
        Result<Swapped> swapped =
            fail(ErrorKind::operator_needed, "{} is not there, or no device-mapper device", path);
        if (name && !driver_is_there()) {
            swapped = fail(
                ErrorKind::operator_needed,
                "{}: the module dm_cbt is not loaded, and `modprobe dm_cbt` did not help", path);
        } else if (name) {
            swapped = swap_in(*name, meta);
        }
        if (!swapped) {
            exit = report(swapped.error());
            continue;
        }
        volumes.push_back({{"path", path}, {"meta", meta}, {"changed", swapped->changed}});
        if (!context.json) {
            print_out(
                "{} {}\n", path,
                swapped->changed ? "is now tracked by the driver dm_cbt" : "was tracked already");
        }
    }
    if (context.json) print_json({{"ok", exit == kDone}, {"volumes", volumes}});
    return exit;
}

int unprotect(const Context& context, const std::string& disk, bool tracker_only) {
    const std::string path = path_of(context, disk);
    const auto name = mapper_name_of(path);
    json answered = json::object();
    int exit = kDone;
    if (!tracker_only) {
        auto answer = ask(context, {{"op", "unprotect"}, {"disk", disk}}, kChange, exit);
        if (answer) {
            answered = *answer;
            exit = kDone;
        } else {
            report(answer.error());
            // Of a command that was killed half-way the table is what is left to do.
            if (!name || exit == kNoReplicator) return exit;
        }
    }
    bool changed = false;
    if (name) {
        auto swapped = swap_out(*device_number(path), *name);
        if (!swapped) return report(swapped.error());
        changed = swapped->changed;
        if (changed) exit = kDone;
    } else if (tracker_only) {
        return failed(fmt::format("{} is not a device-mapper device: nothing to take out", path));
    }
    if (exit != kDone) return exit;
    if (context.json) {
        answered["changed"] = changed;
        print_json(answered);
        return kDone;
    }
    if (changed) print_out("{} has its own table again\n", path);
    if (!tracker_only) {
        print_out("{} is no longer protected; its recovery points stay at the server\n", disk);
    }
    return kDone;
}

}  // namespace herald::cbtctl
