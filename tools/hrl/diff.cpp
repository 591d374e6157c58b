// SPDX-License-Identifier: Apache-2.0
#include "tools/hrl/inputs.h"
#include "tools/hrl/text.h"
#include "tools/hrl/verbs.h"
#include "user/hrl/effects.h"
#include "user/hrl/sorted_journal.h"

namespace herald::hrl_tool {

using namespace herald::hrl;

namespace {

// Where large layers are sorted. Not looked at before it is needed: what is wrong with it is said
// by whoever makes a file in it.
std::filesystem::path scratch_dir() {
    std::error_code error;
    const auto dir = std::filesystem::temp_directory_path(error);
    if (!error) return dir;
    const char* named = std::getenv("TMPDIR");
    return named ? named : "/tmp";
}

}  // namespace

int diff(const DiffOptions& options) {
    bool first = true;
    if (options.json) print_out("{{\"ranges\": [");
    const auto visit = [&](const DifferentRange& range) {
        if (options.json) {
            print_out("{}{{\"offset\": {}, \"length\": {}, \"difference\": \"{}\"}}",
                      first ? "\n" : ",\n", range.offset, range.length,
                      to_string(range.difference));
        } else {
            const char* what = "written by both, differs";
            if (range.difference == Difference::only_first) what = "only in the first";
            if (range.difference == Difference::only_second) what = "only in the second";
            print_out(
                "{:>16} +{:<12} {}\n", range.offset, range.length,
                painted(range.difference == Difference::content ? Colour::red : Colour::yellow,
                        what));
        }
        first = false;
    };
    const auto opener = [&](const std::filesystem::path& file) {
        return [&]() -> Result<std::unique_ptr<Journal>> {
            auto journal = open_journal(file, options.journal);
            if (!journal) return journal;
            return sorted_by_position(std::move(*journal), scratch_dir());
        };
    };
    auto compared = compare_effects(opener(options.first), opener(options.second), visit);
    if (options.json) {
        print_out("\n]");
        if (compared) {
            print_out(
                ", \"different_ranges\": {}, \"different_bytes\": {}, "
                "\"first_disk_bytes\": {}, \"second_disk_bytes\": {}",
                compared->ranges, compared->bytes, compared->first_disk_bytes,
                compared->second_disk_bytes);
        }
        print_out("}}\n");
    }
    if (!compared) return report(compared.error());
    const bool same = compared->ranges == 0 && compared->same_size();
    if (!options.json) {
        if (!compared->same_size()) {
            print_out("the disk ends with {} bytes and with {}\n", compared->first_disk_bytes,
                      compared->second_disk_bytes);
        }
        print_out("{} ranges, {} differ{}\n", compared->ranges, bytes_text(compared->bytes),
                  same ? painted(Colour::green, ": the same effect") : "");
    }
    return same ? kDone : kDifferent;
}

}  // namespace herald::hrl_tool
