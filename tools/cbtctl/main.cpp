// SPDX-License-Identifier: Apache-2.0
// cbtctl: the command line. Man page: packaging/man/cbtctl.8.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <filesystem>

#include "herald/limits.h"
#include "tools/cbtctl/commands.h"
#include "user/agent/freeze.h"
#include "user/base/output.h"
#include "user/base/usage.h"

namespace herald::cbtctl {
namespace {

using nlohmann::json;

// Stopping a disk's replication waits for what is under way.
constexpr auto kChange = std::chrono::seconds(60);

int change(const Context& context, const json& request, const std::string& done) {
    int exit = kDone;
    auto answer = ask(context, request, kChange, exit);
    if (!answer) return report(answer.error()), exit;
    if (context.json) {
        print_json(*answer);
    } else {
        print_out("{}\n", done);
    }
    return kDone;
}

}  // namespace

int resync(const Context& context, const std::string& disk, const std::string& how) {
    return change(context, {{"op", "resync"}, {"disk", disk}, {"how", how}},
                  fmt::format("{} is being synchronized again ({}): cbtctl status {} --wait-synced",
                              disk, how, disk));
}

namespace {

int run(int argc, char** argv) {
    CLI::App app(
        "Shows and controls the protection of this machine's disks.\n"
        "DISK is a path (/dev/sda), a kernel name (sda) or a disk id.",
        "cbtctl");
    app.set_version_flag("--version", "cbtctl " HERALD_VERSION);
    app.require_subcommand(1);
    app.fallthrough();  // --json and --socket may stand after the command, too
    Context context;
    std::string socket = agent::kControlSocketDefault;
    app.add_flag("--json", context.json, "Print JSON instead of text");
    app.add_option("--socket", socket, "The replicator's control socket")
        ->capture_default_str()
        ->take_last();
    app.footer(
        "Examples:\n"
        "  cbtctl protect /dev/sdb\n"
        "  cbtctl status /dev/sdb --wait-synced\n"
        "  cbtctl tag /dev/sdb --name \"before upgrade\"\n"
        "  cbtctl tag sdb --while-frozen 'sha256sum /srv/disk.img'\n"
        "  cbtctl map sdb --json\n"
        "  cbtctl protect /dev/vg/data --meta /dev/vg/data_meta\n"
        "  cbtctl tag --disks /dev/vg/data,/dev/vg/log\n"
        "  cbtctl doctor\n\n"
        "Exit status: 0 done, 1 refused or failed, 2 wrong usage, 3 no replicator answers,\n"
        "4 --timeout passed, 5 the --while-frozen command failed.");

    std::string disk;
    const auto with_disk = [&](const char* name, const char* what, const char* examples) {
        CLI::App* command = app.add_subcommand(name, what);
        command->add_option("DISK", disk, "Path, kernel name or id of a disk")->required();
        command->footer(examples);
        return command;
    };

    CLI::App* list_command = app.add_subcommand("list", "List the protected disks");
    list_command->footer("Example:\n  cbtctl list --json");

    ProtectOptions protect_options;
    CLI::App* protect_command =
        app.add_subcommand("protect", "Start protecting a whole disk, or a volume in use");
    protect_command->add_option("DISK", protect_options.path, "Path of a whole disk or a volume")
        ->required();
    protect_command
        ->add_option("--tracker", protect_options.tracker,
                     "dm_cbt: the driver, under a device-mapper volume; ebpf; auto: the driver "
                     "where it can be")
        ->capture_default_str()
        ->check(CLI::IsMember({"auto", "dm_cbt", "ebpf"}).description("auto|dm_cbt|ebpf"));
    protect_command->add_option("--meta", protect_options.meta,
                                "The driver's meta device for this volume (cbtctl format-meta)");
    protect_command->add_flag("--tracker-only", protect_options.tracker_only,
                              "Put the driver in place and do not ask the replicator");
    protect_command->footer(
        "Examples:\n  cbtctl protect /dev/sdb\n"
        "  cbtctl format-meta /dev/vg/data_meta --disk /dev/vg/data\n"
        "  cbtctl protect /dev/vg/data --meta /dev/vg/data_meta\n\n"
        "A volume stays mounted and in use. Killed half-way, run it again.");

    CLI::App* unprotect_command =
        with_disk("unprotect", "Stop protecting a disk; its points stay at the server",
                  "Examples:\n  cbtctl unprotect sdb\n  cbtctl unprotect /dev/vg/data\n\n"
                  "A volume gets its own table back while it is in use.");
    bool tracker_only = false;
    unprotect_command->add_flag("--tracker-only", tracker_only,
                                "Take the driver out and do not ask the replicator");

    std::string volumes_file = "/etc/herald/volumes";
    CLI::App* assemble_command = app.add_subcommand(
        "assemble",
        "Put the driver under the volumes of a file, as at boot before they are mounted");
    assemble_command
        ->add_option("--file", volumes_file, "Lines of a volume and its meta device, or -")
        ->capture_default_str();
    assemble_command->footer(
        "Example:\n  cbtctl assemble\n\n"
        "The replicator is not asked. A volume that fails does not keep the others.");

    FormatMetaOptions format_options;
    CLI::App* format_command = app.add_subcommand(
        "format-meta", "Make a device the driver's meta device for a disk; overwrites it");
    format_command->add_option("META", format_options.meta, "The device to overwrite")->required();
    format_command->add_option("--disk", format_options.disk, "The disk that it is for")
        ->required();
    format_command->add_flag("--force", format_options.force,
                             "Also when it holds something; never when it is in use");
    format_command->footer(
        "Example:\n  cbtctl format-meta /dev/vg/data_meta --disk /dev/vg/data\n\n"
        "It needs 8 KiB for each 1.97 GiB of the disk, and 32 KiB.");

    CLI::App* stats_command =
        with_disk("stats", "What the driver dm_cbt counted of a disk",
                  "Examples:\n  cbtctl stats /dev/vg/data\n  cbtctl stats dm-0 --json");

    double watch_every_s = 1;
    uint64_t watch_count = 0;
    CLI::App* watch_command = with_disk(
        "watch", "A line every second: mode, rates, how full the driver's rings are",
        "Examples:\n  cbtctl watch /dev/vg/data\n  cbtctl watch dm-0 --every 0.2 --count 50");
    watch_command->add_option("--every", watch_every_s, "Seconds between two lines")
        ->type_name("SECONDS")
        ->capture_default_str()
        ->check(CLI::Range(0.01, 3600.0).description(""));
    watch_command->add_option("--count", watch_count, "Lines; 0: until it is stopped")
        ->type_name("N")
        ->capture_default_str();

    bool waiting = false;
    double timeout_s = 0;
    CLI::App* status_command = with_disk(
        "status", "Show one disk in full",
        "Examples:\n  cbtctl status sdb\n  cbtctl status sdb --wait-synced --timeout 600");
    status_command->add_flag("--wait-synced", waiting, "Wait, with a progress bar, for the sync");
    status_command->add_option("--timeout", timeout_s, "Give up waiting after this many seconds")
        ->type_name("SECONDS")
        ->check(CLI::Range(0.0, 1e7).description(""));

    uint64_t runs_max = 4096;
    CLI::App* map_command =
        with_disk("map", "Show the dirty regions as a bar, or as extents with --json",
                  "Examples:\n  cbtctl map sdb\n  cbtctl map sdb --json --runs-max 100000");
    map_command->add_option("--runs-max", runs_max, "Most runs to ask for")
        ->type_name("N")
        ->capture_default_str()
        ->check(CLI::Range(1, 100000).description(""));

    TagOptions tag_options;
    double tag_timeout_s = 600;
    CLI::App* tag_command = app.add_subcommand(
        "tag", "Make a recovery point, under a short freeze of the disk's filesystems");
    tag_command->footer(
        "Examples:\n  cbtctl tag sdb --name nightly\n"
        "  cbtctl tag --disks /dev/vg/data,/dev/vg/log\n"
        "  cbtctl tag sdb --while-frozen 'sha256sum /srv/disk.img > /mnt/other/sum'\n\n"
        "The command runs by /bin/sh after the last change was read and before the thaw. If it\n"
        "fails, or is not done by the freeze deadline, no point is made (exit status 5).\n"
        "--disks marks one moment of all these disks, which the driver dm_cbt tracks, with\n"
        "nothing frozen; where one of them cannot be marked none is.");
    std::vector<std::string> tag_disk_list;
    CLI::Option* one_disk =
        tag_command->add_option("DISK", disk, "Path, kernel name or id of a disk");
    CLI::Option* several = tag_command
                               ->add_option("--disks", tag_disk_list,
                                            "Disks of the driver dm_cbt, for one tag at the same "
                                            "moment")
                               ->delimiter(',')
                               ->type_name("DISK,DISK")
                               ->excludes(one_disk);
    tag_command->add_option("--name", tag_options.name, "A name for people")
        ->excludes(several)
        ->check([](const std::string& name) {
            return name.size() <= HERALD_NAME_BYTES_MAX
                       ? std::string()
                       : fmt::format("a name has at most {} bytes", HERALD_NAME_BYTES_MAX);
        });
    tag_command
        ->add_option("--while-frozen", tag_options.while_frozen,
                     "Shell command to run while the filesystems are frozen")
        ->excludes(several);
    tag_command
        ->add_option("--timeout", tag_timeout_s, "Give up after this many seconds without progress")
        ->type_name("SECONDS")
        ->capture_default_str()
        ->check(CLI::Range(0.001, 1e7).description(""));

    CLI::App* resync_command =
        with_disk("resync", "Send again: everything, what differs, or what is marked dirty",
                  "Example:\n  cbtctl resync sdb --digest");
    bool full = false, digest = false, dirty = false;
    CLI::Option_group* how = resync_command->add_option_group("how", "One of these is needed");
    how->add_flag("--full", full, "Read and send the whole disk");
    how->add_flag("--digest", digest, "Read the whole disk, send only what differs");
    how->add_flag("--dirty", dirty, "Read and send the blocks marked dirty");
    how->require_option(1);

    CLI::App* doctor_command =
        app.add_subcommand("doctor", "Check what protection needs on this machine");
    std::string guardian_socket = agent::kGuardianSocketDefault;
    doctor_command->add_option("--guardian-socket", guardian_socket, "The guardian's socket")
        ->capture_default_str();
    doctor_command->footer("Works without a running replicator, too.\n\nExample:\n  cbtctl doctor");

    try {
        app.parse(argc, argv);
        if (*tag_command && disk.empty() && tag_disk_list.empty()) {
            throw CLI::RequiredError("DISK or --disks");
        }
    } catch (const CLI::ParseError& error) {
        return usage_error(app, error, kUsage);
    }
    context.socket = socket;
    const auto ms = [](double seconds) {
        return std::chrono::milliseconds(int64_t(seconds * 1000));
    };
    tag_options.disk = disk;
    tag_options.timeout = std::max(ms(tag_timeout_s), std::chrono::milliseconds(1));

    if (*list_command) return list(context);
    if (*protect_command) return protect(context, protect_options);
    if (*unprotect_command) return unprotect(context, disk, tracker_only);
    if (*assemble_command) return assemble(context, volumes_file);
    if (*format_command) return format_meta(context, format_options);
    if (*stats_command) return stats(context, disk);
    if (*watch_command) return watch(context, disk, ms(watch_every_s), watch_count);
    if (*tag_command && !tag_disk_list.empty()) return tag_disks(context, tag_disk_list);
    if (*status_command && waiting) return wait_synced(context, disk, ms(timeout_s));
    if (*status_command) return status(context, disk);
    if (*map_command) return map(context, disk, runs_max);
    if (*tag_command) return tag(context, tag_options);
    if (*resync_command) {
        return resync(context, disk, full ? "full" : digest ? "digest" : "dirty");
    }
    if (*doctor_command) return doctor(context, guardian_socket);
    return kUsage;
}

}  // namespace

}  // namespace herald::cbtctl

int main(int argc, char** argv) {
    std::signal(SIGPIPE, SIG_IGN);
    return herald::end_output("cbtctl", herald::cbtctl::run(argc, argv), herald::cbtctl::kFailed);
}
