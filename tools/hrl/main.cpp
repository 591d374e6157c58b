// SPDX-License-Identifier: Apache-2.0
// hrl: looks into .hrl journals, proves them whole, converts, compares and applies them.
#include <cstdio>

#include "tools/hrl/key.h"
#include "tools/hrl/text.h"
#include "tools/hrl/verbs.h"
#include "user/base/usage.h"
#include "user/seal/keyring.h"

namespace herald::hrl_tool {

int report(const Error& error) {
    flush_out();
    print_err("hrl: {}\n", error.message);
    return error.kind == ErrorKind::corrupt ? kDamaged : kRefused;
}

namespace {

constexpr const char* kStatuses =
    "Exit status: 0 all is well; 1 a file is damaged or torn; 2 it could not be done (wrong\n"
    "usage, no such file, no key, target exists, standard output is full);\n"
    "3 the journals that were compared differ. With verify, 2 takes precedence over 1.";

// An option whose text `parse` understands, or not.
template <class Parse>
CLI::Option* add_parsed(CLI::App* verb, const std::string& name, const std::string& help,
                        Parse parse) {
    return verb->add_option_function<std::string>(
        name,
        [name, parse](const std::string& text) {
            if (!parse(text)) throw CLI::ValidationError(name, "not understood: " + text);
        },
        help);
}

// Options of every verb: how a journal is read.
void add_reading(CLI::App* verb, Reading& options, seal::KeyOptions& keys) {
    add_parsed(verb, "--entry-order", "v2: oldest or newest first, where nothing proves it",
               [&](const std::string& text) {
                   if (text == "oldest") options.entry_order = hrl::v2::EntryOrder::oldest_first;
                   if (text == "newest") options.entry_order = hrl::v2::EntryOrder::newest_first;
                   return options.entry_order.has_value();
               });
    verb->add_option("--key", keys.root, "sealed files: the root key file");
    verb->add_option("--keys", keys.keys, "a machine key file, or a directory of them");
    verb->add_option("--secret-file", keys.secret_file,
                     "its first line is the passphrase or PIN of the root key");
    verb->add_flag("--allow-plain", options.allow_plain,
                   "with --key: take files that are not sealed, too");
}

void add_uuid(CLI::App* verb, const char* name, const char* help, Uuid& to) {
    add_parsed(verb, name, help, [&to](const std::string& text) {
        auto id = Uuid::parse(text);
        if (id) to = *id;
        return id.has_value();
    });
}

// "31-60", "31-", "-60", "31"
bool parse_positions(const std::string& text, RecordsOptions& options) {
    const auto number = [](std::string_view part, uint64_t& to) {
        const auto parsed = parse_bytes(part);
        if (parsed) to = *parsed;
        return part.empty() || parsed.has_value();
    };
    const size_t dash = text.find('-');
    if (text.empty() || text == "-") return false;
    const bool first = number(std::string_view(text).substr(0, dash), options.first_position);
    if (dash == std::string::npos) {
        options.last_position = options.first_position;
        return first;
    }
    return first && number(std::string_view(text).substr(dash + 1), options.last_position);
}

// "OFFSET+LENGTH"
bool parse_range(const std::string& text, RecordsOptions& options) {
    const size_t plus = text.find('+');
    if (plus == std::string::npos) return false;
    const auto offset = parse_bytes(std::string_view(text).substr(0, plus));
    const auto length = parse_bytes(std::string_view(text).substr(plus + 1));
    if (!offset || !length || *length == 0 || *length > UINT64_MAX - *offset) return false;
    options.range_begin = *offset;
    options.range_end = *offset + *length;
    return true;
}

int run(int argc, char** argv) {
    seal::KeyOptions key_options;
    CLI::App app{
        "hrl: look into .hrl journals (v3 segments and v2 Hyper-V Replica Logs), prove "
        "them whole, convert, compare and apply them",
        "hrl"};
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
    auto* info_verb = app.add_subcommand("info", "What a journal is: ids, positions, times, sizes");
    info_verb->add_option("FILE", info_options.file, "a journal")->required();
    info_verb->add_flag("--blocks", info_options.blocks, "v3: list its blocks, too");
    info_verb->add_flag("--json", info_options.json, "print JSON");
    add_reading(info_verb, info_options.journal, key_options);
    info_verb->footer(
        "Reads headers and index only, so it is quick on any size; a torn file is walked.\n"
        "Examples:\n  hrl info 0001.hrl\n  hrl info 0001.hrl --blocks --json | jq .blocks");

    RecordsOptions records_options;
    auto* records_verb = app.add_subcommand("records", "Every record, one a line");
    records_verb->add_option("FILE", records_options.file, "a journal")->required();
    add_parsed(records_verb, "--positions", "FIRST-LAST: only these; either may be left out",
               [&](const std::string& text) { return parse_positions(text, records_options); });
    add_parsed(records_verb, "--since", "TIME: only records at or after it (UTC)",
               [&](const std::string& text) {
                   const auto time = parse_time(text);
                   records_options.since_ns = time.value_or(0);
                   return time.has_value();
               });
    add_parsed(records_verb, "--before", "TIME: only records before it (UTC)",
               [&](const std::string& text) {
                   const auto time = parse_time(text);
                   records_options.before_ns = time.value_or(0);
                   return time.has_value();
               });
    add_parsed(records_verb, "--range", "OFFSET+LENGTH: only records that touch this of the disk",
               [&](const std::string& text) { return parse_range(text, records_options); });
    records_verb->add_flag("--json", records_options.json, "print a JSON array");
    add_reading(records_verb, records_options.journal, key_options);
    records_verb->footer(
        "Of a torn file the records up to its last whole block are listed; the exit status is 1.\n"
        "Blocks that cannot hold what the filters ask for are not read: verify reads everything.\n"
        "Examples:\n  hrl records 0001.hrl | head\n"
        "  hrl records 0001.hrl --positions 31-60 --range 64K+4K\n"
        "  hrl records 0001.hrl --since 2024-02-29T12:00:00Z --before 2024-03-01\n"
        "  hrl records 0001.hrl --json | jq '.[] | select(.kind == \"tag\")'");

    VerifyOptions verify_options;
    auto* verify_verb = app.add_subcommand("verify", "Read everything and check every checksum");
    verify_verb->add_option("FILE", verify_options.files, "journals")->required();
    verify_verb->add_flag("--json", verify_options.json, "print a JSON array");
    add_reading(verify_verb, verify_options.journal, key_options);
    verify_verb->footer(
        "All files are looked at, also after one that is damaged.\n"
        "Examples:\n  hrl verify 0001.hrl\n  hrl verify /var/lib/herald/store/segments/*/*.hrl || "
        "echo damaged");

    ApplyOptions apply_options;
    auto* apply_verb = app.add_subcommand("apply", "Apply journals to an image or block device");
    apply_verb->add_option("FILE", apply_options.files, "journals of one disk, in any order")
        ->required();
    apply_verb->add_option("--to", apply_options.target, "the image; created if there is none")
        ->required();
    apply_verb->add_option("--until", apply_options.until,
                           "stop after the record at this position");
    apply_verb->add_flag("--force", apply_options.force,
                         "apply onto an existing file or device, or begin in mid-stream");
    add_reading(apply_verb, apply_options.journal, key_options);
    apply_verb->footer(
        "All files are verified, and that they fit the target, before it is touched. A gap "
        "between\n"
        "them, files of different disks and an existing target are refused. A new image appears\n"
        "under its name only when it is complete.\n"
        "Examples:\n  hrl apply *.hrl --to disk.img\n"
        "  hrl apply 0001.hrl 0002.hrl --to disk.img --until 4711\n"
        "  hrl apply 0003.hrl --to disk.img --force      (onto an image that holds what was "
        "before)");

    ConvertOptions convert_options;
    auto* convert_verb = app.add_subcommand("convert", "Convert between v3 and v2");
    convert_verb->add_option("FILE", convert_options.files, "journals of one disk")->required();
    convert_verb->add_option("--to", convert_options.target, "the new file")->required();
    add_parsed(convert_verb, "--format", "v2 or v3", [&](const std::string& text) {
        convert_options.format = text == "v2" ? hrl::JournalFormat::v2 : hrl::JournalFormat::v3;
        return text == "v2" || text == "v3";
    })->required();
    add_uuid(convert_verb, "--machine", "to v3: id of the machine", convert_options.machine);
    add_uuid(convert_verb, "--disk", "to v3: id of the disk", convert_options.disk);
    add_parsed(convert_verb, "--disk-bytes", "to v3: size of the disk",
               [&](const std::string& text) {
                   convert_options.disk_bytes = parse_bytes(text);
                   return convert_options.disk_bytes.has_value();
               });
    convert_verb->add_option("--first-position", convert_options.first_position,
                             "to v3: position of the first record (1)");
    convert_verb->add_flag("--dry-run", convert_options.dry_run,
                           "only say what the other format cannot carry");
    add_reading(convert_verb, convert_options.journal, key_options);
    convert_verb->footer(
        "What the other format cannot carry is listed before anything is written. The new file\n"
        "appears under its name only when it is complete.\n"
        "Examples:\n  hrl convert 0001.hrl --to log.hrl --format v2\n"
        "  hrl convert log.hrl --to 0001.hrl --format v3 --disk-bytes 40G");

    RepairOptions repair_options;
    auto* repair_verb = app.add_subcommand("repair", "Write what is proven of a file to a new one");
    repair_verb->add_option("FILE", repair_options.file, "a damaged or torn journal")->required();
    repair_verb->add_option("--to", repair_options.target, "the new file")->required();
    add_reading(repair_verb, repair_options.journal, key_options);
    repair_verb->footer(
        "Never in place; an existing target is refused. What is lost is said. A layer of which\n"
        "anything is lost is refused: what is left of it is no state of the disk.\n"
        "Examples:\n  hrl repair torn.hrl --to repaired.hrl");

    DiffOptions diff_options;
    auto* diff_verb = app.add_subcommand("diff", "Where two journals leave a disk different");
    diff_verb->add_option("FIRST", diff_options.first, "a journal")->required();
    diff_verb->add_option("SECOND", diff_options.second, "another, of either format")->required();
    diff_verb->add_flag("--json", diff_options.json, "print JSON");
    add_reading(diff_verb, diff_options.journal, key_options);
    diff_verb->footer(
        "Compares effects, not records: the exit status is 0 when applying either gives the same\n"
        "disk, 3 when not.\n"
        "Examples:\n  hrl diff 0001.hrl log.hrl && echo same");

    StatsOptions stats_options;
    auto* stats_verb = app.add_subcommand("stats", "Sizes, churn, hot regions, compressibility");
    stats_verb->add_option("FILE", stats_options.file, "a journal")->required();
    stats_verb->add_flag("--json", stats_options.json, "print JSON");
    add_reading(stats_verb, stats_options.journal, key_options);
    stats_verb->footer(
        "Examples:\n  hrl stats 0001.hrl\n"
        "  hrl stats 0001.hrl --json | jq .hottest_regions");

    const KeyVerbs key_verbs(app);

    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return usage_error(app, error, kRefused);
    }
    if (key_verbs.chosen()) return key_verbs.run();
    seal::Keyring keyring;
    if (!key_options.root.empty() || !key_options.keys.empty()) {
        auto opened = seal::open_keyring(key_options);
        if (!opened) return report(opened.error());
        keyring = std::move(*opened);
        for (Reading* options :
             {&info_options.journal, &records_options.journal, &verify_options.journal,
              &apply_options.journal, &convert_options.journal, &repair_options.journal,
              &diff_options.journal, &stats_options.journal}) {
            options->segment.keys = &keyring;
        }
    }
    if (*info_verb) return info(info_options);
    if (*records_verb) return records(records_options);
    if (*verify_verb) return verify(verify_options);
    if (*convert_verb) return convert(convert_options);
    if (*repair_verb) return repair(repair_options);
    if (*diff_verb) return diff(diff_options);
    if (*stats_verb) return stats(stats_options);
    return apply(apply_options);
}

}  // namespace

}  // namespace herald::hrl_tool

int main(int argc, char** argv) {
    using namespace herald::hrl_tool;
    return herald::end_output("hrl", run(argc, argv), kRefused);
}
