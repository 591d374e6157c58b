// SPDX-License-Identifier: Apache-2.0
// hrl: looks into .hrl segments, proves them whole, and applies them to an image.
#include <cstdio>

#include "tools/hrl/verbs.h"
#include "user/base/usage.h"

namespace herald::hrl_tool {

int report(const Error& error) {
    std::fflush(stdout);
    fmt::print(stderr, "hrl: {}\n", error.message);
    return error.kind == ErrorKind::corrupt ? kDamaged : kRefused;
}

namespace {

constexpr const char* kStatuses =
    "Exit status: 0 all is well; 1 a file is damaged or torn; 2 it could not be done (wrong\n"
    "usage, no such file, target exists).";

int run(int argc, char** argv) {
    CLI::App app{"hrl: look into .hrl segments, prove them whole, apply them to an image", "hrl"};
    app.set_version_flag("--version", "hrl " HERALD_VERSION);
    app.require_subcommand(1);
    app.footer(
        fmt::format("Examples:\n"
                    "  hrl info 0001.hrl\n"
                    "  hrl verify *.hrl\n"
                    "  hrl apply *.hrl --to disk.img\n"
                    "Help on a verb: hrl VERB --help\n\n{}",
                    kStatuses));

    InfoOptions info_options;
    auto* info_verb = app.add_subcommand("info", "What a segment is: ids, positions, times, sizes");
    info_verb->add_option("FILE", info_options.file, "a segment")->required();
    info_verb->add_flag("--blocks", info_options.blocks, "list its blocks, too");
    info_verb->add_flag("--json", info_options.json, "print JSON");
    info_verb->footer(
        "Reads header and index only, so it is quick on any size; a torn file is walked.\n"
        "Examples:\n  hrl info 0001.hrl\n  hrl info 0001.hrl --blocks --json | jq .blocks");

    RecordsOptions records_options;
    auto* records_verb = app.add_subcommand("records", "Every record, one a line");
    records_verb->add_option("FILE", records_options.file, "a segment")->required();
    records_verb->add_flag("--json", records_options.json, "print a JSON array");
    records_verb->footer(
        "Of a torn file the records up to its last whole block are listed; the exit status is 1.\n"
        "Examples:\n  hrl records 0001.hrl | head\n"
        "  hrl records 0001.hrl --json | jq '.[] | select(.kind == \"tag\")'");

    VerifyOptions verify_options;
    auto* verify_verb = app.add_subcommand("verify", "Read everything and check every checksum");
    verify_verb->add_option("FILE", verify_options.files, "segments")->required();
    verify_verb->add_flag("--json", verify_options.json, "print a JSON array");
    verify_verb->footer(
        "All files are looked at, also after one that is damaged.\n"
        "Examples:\n  hrl verify 0001.hrl\n  hrl verify /var/lib/herald/store/segments/*/*.hrl || "
        "echo damaged");

    ApplyOptions apply_options;
    auto* apply_verb = app.add_subcommand("apply", "Apply segments to an image or block device");
    apply_verb->add_option("FILE", apply_options.files, "segments of one disk, in any order")
        ->required();
    apply_verb->add_option("--to", apply_options.target, "the image; created if there is none")
        ->required();
    apply_verb->add_option("--until", apply_options.until,
                           "stop after the record at this position");
    apply_verb->add_flag("--force", apply_options.force,
                         "apply onto an existing file or device, or begin in mid-stream");
    apply_verb->footer(
        "All segments are verified before the target is touched. A gap between them, segments of\n"
        "different disks and an existing target are refused. A new image appears under its name\n"
        "only when it is complete.\n"
        "Examples:\n  hrl apply *.hrl --to disk.img\n"
        "  hrl apply 0001.hrl 0002.hrl --to disk.img --until 4711\n"
        "  hrl apply 0003.hrl --to disk.img --force      (onto an image that holds what was "
        "before)");

    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return usage_error(app, error, kRefused);
    }
    if (*info_verb) return info(info_options);
    if (*records_verb) return records(records_options);
    if (*verify_verb) return verify(verify_options);
    return apply(apply_options);
}

}  // namespace

}  // namespace herald::hrl_tool

int main(int argc, char** argv) { return herald::hrl_tool::run(argc, argv); }
