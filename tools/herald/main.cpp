// SPDX-License-Identifier: Apache-2.0
// herald: the operator's command. This file is the command line; verbs.h has what it does.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>

#include "tools/herald/exit_status.h"
#include "tools/herald/interrupt.h"
#include "tools/herald/time_text.h"
#include "tools/herald/verbs.h"
#include "user/base/output.h"
#include "user/base/usage.h"

namespace {

using namespace herald;
using namespace herald::cli;

constexpr char kExamples[] =
    "Examples:\n"
    "  herald init site --server-host backup.example.net --machine web1\n"
    "  herald disks\n"
    "  herald points /dev/sda\n"
    "  herald restore /dev/sda --latest --to web1.img --sha256\n"
    "Help on a verb, with examples: herald VERB --help\n\n";

constexpr char kExitStatuses[] =
    "Exit status: 0 done, 1 failed, 2 wrong command line, 3 refused (would overwrite, in use, too\n"
    "small), 4 server not reachable, 5 corrupt data found, 6 no such disk or point, 130 "
    "interrupted.";

std::string default_machine_name() {
    char name[256] = {};
    if (::gethostname(name, sizeof name - 1) != 0 || !name[0]) return "machine";
    return std::string(name).substr(0, std::string_view(name).find('.'));
}

// A host name or address without port, brackets or scheme.
std::string check_host(const std::string& host) {
    for (const char c : host)
        if (!std::isalnum(static_cast<unsigned char>(c)) && c != '.' && c != '-' && c != ':')
            return "'" + host + "' is not a host name or address";
    if (host.empty() || host.size() > 253) return "a host name has 1 to 253 characters";
    if (std::count(host.begin(), host.end(), ':') == 1)
        return "'" + host + "' has a port in it; give that with --port";
    return {};
}

std::string check_moment(const std::string& text) {
    const auto time = parse_time(text);
    return time ? std::string() : time.error().message;
}

class CommandLine {
  public:
    CommandLine()
        : app_("Herald's operator command: set a site up, look at it, bring a moment back.",
               "herald") {
        app_.set_version_flag("--version", "herald " HERALD_VERSION);
        app_.require_subcommand(1);
        app_.footer(std::string(kExamples) + kExitStatuses);
        add_init();
        add_enrol();
        add_config(&app_);
        add_disks();
        add_points();
        add_status();
        add_restore();
    }

    int run(int argc, char** argv) {
        try {
            app_.parse(argc, argv);
        } catch (const CLI::ParseError& error) {
            return usage_error(app_, error, int(ExitStatus::usage));
        }
        const auto result = verb_();
        if (result) return int(ExitStatus::ok);
        flush_out();
        print_err("herald: {}\n", result.error().message);
        return int(exit_status_of(result.error()));
    }

  private:
    void add_common(CLI::App* sub) {
        add_config(sub);
        add_json(sub);
    }
    // Taken before the verb and after it.
    void add_config(CLI::App* app) {
        app->add_option_function<std::string>(
               "--config", [this](const std::string& file) { common_.config = file; },
               "Configuration (default: ~/.config/herald/herald.toml, /etc/herald/herald.toml)")
            ->type_name("FILE");
    }
    void add_json(CLI::App* sub) { sub->add_flag("--json", common_.json, "Print JSON"); }

    void add_init() {
        auto* sub = app_.add_subcommand(
            "init",
            "Make a certificate authority, and the folders of a server, a machine and an "
            "operator");
        init_.dir = "herald";
        init_.machine_name = default_machine_name();
        sub->add_option("DIR", init_.dir, "Directory to make; an existing one is refused")
            ->capture_default_str();
        sub->add_option("--server-host", init_.site.server_hosts,
                        "Name or address the server answers on; may be given several times, "
                        "machines use the first")
            ->type_name("HOST")
            ->expected(1)
            ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
            ->check(CLI::Validator(check_host, ""))
            ->capture_default_str();
        sub->add_option("--port", init_.site.port, "The server's port")
            ->check(CLI::Range(1, 65535))
            ->capture_default_str();
        sub->add_option("--machine", init_.machine_name, "Name of the first machine")
            ->type_name("NAME")
            ->capture_default_str();
        sub->add_option("--operator", init_.operator_name, "Name of the first operator")
            ->type_name("NAME")
            ->capture_default_str();
        sub->add_option("--store", init_.site.store_dir,
                        "Where the server keeps segments (default: STATE_DIR/store)")
            ->type_name("DIR");
        sub->add_option("--run-dir", init_.site.run_dir,
                        "Where daemons put their sockets, and the tracker its pins (in bpf/)")
            ->type_name("DIR")
            ->capture_default_str();
        sub->add_option("--state-dir", init_.site.state_dir, "Where daemons keep their state")
            ->type_name("DIR")
            ->capture_default_str();
        sub->add_option("--points-every", init_.site.points_every_s,
                        "Seconds between recovery points; 0: only when asked for")
            ->type_name("SECONDS")
            ->capture_default_str();
        sub->add_option("--valid-days", init_.site.valid_days, "How long certificates are valid")
            ->check(CLI::Range(1, 36500))
            ->capture_default_str();
        add_json(sub);
        sub->footer(
            "Examples:\n"
            "  herald init\n"
            "      everything on this host, in ./herald\n"
            "  herald init site --server-host backup.example.net --server-host 192.0.2.10 "
            "--machine "
            "web1\n");
        sub->callback([this] { verb_ = [this] { return run_init(common_, init_); }; });
    }

    void add_enrol() {
        auto* sub =
            app_.add_subcommand("enroll", "Make the folder of a further machine or operator");
        sub->add_option("KIND", enrol_kind_, "machine or operator")
            ->required()
            ->check(CLI::IsMember({"machine", "operator"}));
        sub->add_option("NAME", enrol_name_, "Its name")->required();
        sub->add_option("--dir", init_.dir, "The directory that 'herald init' made")
            ->type_name("DIR")
            ->capture_default_str();
        add_json(sub);
        sub->footer(
            "Examples:\n"
            "  herald enroll machine web2 --dir site\n"
            "  herald enroll operator alice --dir site\n");
        sub->callback([this] {
            verb_ = [this] {
                return run_enrol(
                    common_, init_.dir,
                    enrol_kind_ == "machine" ? EnrolKind::machine : EnrolKind::operator_,
                    enrol_name_);
            };
        });
    }

    void add_disks() {
        auto* sub = app_.add_subcommand("disks", "List the disks the server holds");
        add_common(sub);
        sub->footer("Examples:\n  herald disks\n  herald disks --json\n");
        sub->callback([this] { verb_ = [this] { return run_disks(common_); }; });
    }

    void add_disk_argument(CLI::App* sub) {
        sub->add_option("DISK", restore_.disk,
                        "Id or its unique beginning, name (\"/dev/sda on web1\" or \"/dev/sda\"), "
                        "or identity (\"gpt:...\")")
            ->required();
    }

    void add_points() {
        auto* sub = app_.add_subcommand("points", "List the recovery points of a disk");
        add_disk_argument(sub);
        add_common(sub);
        sub->footer(
            "Examples:\n  herald points /dev/sda\n  herald points 3f2a91c0 --json\n"
            "  herald points /dev/sda --all\n");
        sub->add_flag("--all", all_, "Also those that were refused, each with the reason");
        sub->callback(
            [this] { verb_ = [this] { return run_points(common_, restore_.disk, all_); }; });
    }

    void add_status() {
        auto* sub = app_.add_subcommand("status", "Show the server's status");
        add_common(sub);
        sub->footer("Examples:\n  herald status\n  herald status --json\n");
        sub->callback([this] { verb_ = [this] { return run_status(common_); }; });
    }

    void add_restore() {
        auto* sub = app_.add_subcommand(
            "restore", "Write a disk as it was at a recovery point to an image or a block device");
        add_disk_argument(sub);
        auto* which = sub->add_option_group("Which point");
        which->add_option("--point", restore_.point.id, "Id or its unique beginning")
            ->type_name("ID");
        which->add_flag("--latest", restore_.point.latest, "The newest");
        auto* time_option =
            which
                ->add_option_function<std::string>(
                    "--time",
                    [this](const std::string& text) {
                        if (const auto time = parse_time(text)) restore_.point.time_ns = *time;
                    },
                    "The newest at or before a moment: RFC 3339, or '2026-11-23 14:05[:06]' local "
                    "time; "
                    "of an ordered stream any boundary, not only points")
                ->type_name("TIME")
                ->check(CLI::Validator([](std::string& text) { return check_moment(text); }, ""));
        which
            ->add_option("--position", restore_.position,
                         "As the stream left it behind this record, where that is restorable")
            ->type_name("N");
        which->require_option(1);
        sub->add_flag(
               "--exact", restore_.exact,
               "With --time, of an ordered stream: that moment itself, or a refusal; for several "
               "disks of one machine")
            ->needs(time_option);
        sub->add_option("--to", restore_.to, "Image file to make, or block device to overwrite")
            ->type_name("PATH")
            ->required();
        sub->add_flag("--force", restore_.force,
                      "Replace an existing file, or overwrite a block device that is not in use");
        sub->add_flag("--sha256", restore_.sha256, "Read the image back and print its SHA-256");
        add_common(sub);
        sub->footer(
            "Examples:\n"
            "  herald restore /dev/sda --latest --to web1.img\n"
            "  herald restore 3f2a91c0 --point 77ab12cd --to web1.img --sha256\n"
            "  herald restore /dev/sda --time '2026-11-23 14:05' --to /dev/sdb --force\n"
            "  herald restore /dev/sda --position 48123 --to web1.img\n"
            "  herald restore /dev/mapper/vg-log --time 2026-11-23T14:05:06.25Z --exact --to "
            "log.img\n"
            "\nA mounted or otherwise used device, or one smaller than the disk, is always "
            "refused.\n");
        sub->callback([this] { verb_ = [this] { return run_restore(common_, restore_); }; });
    }

    CLI::App app_;
    CommonOptions common_;
    InitRequest init_;
    RestoreOptions restore_;
    bool all_ = false;
    std::string enrol_kind_;
    std::string enrol_name_;
    std::function<Result<void>()> verb_;
};

}  // namespace

int main(int argc, char** argv) {
    catch_interrupts();
    CommandLine line;
    return end_output("herald", line.run(argc, argv), int(ExitStatus::failed));
}
