// SPDX-License-Identifier: Apache-2.0
#include <map>

#include "tools/hrl/disk_bounds.h"
#include "tools/hrl/inputs.h"
#include "tools/hrl/progress.h"
#include "tools/hrl/text.h"
#include "tools/hrl/verbs.h"

namespace herald::hrl_tool {

namespace {

using namespace herald::hrl;

// A file that is sealed for each disk of which there is one among the files.
using SealedFiles = std::map<std::pair<Uuid, Uuid>, std::filesystem::path>;

SealedFiles find_sealed(const VerifyOptions& options) {
    SealedFiles sealed;
    // What cannot be opened is said when its turn comes.
    for (const auto& file : options.files) {
        auto source = file_source(file);
        if (!source) continue;
        const auto format = detect_format(**source);
        if (!format || *format == JournalFormat::v2) continue;  // opening a log may be to search it
        auto journal = open_journal(file, may_look(options.journal));
        if (!journal || !(*journal)->facts().sealed) continue;
        const JournalFacts& facts = (*journal)->facts();
        sealed.emplace(std::pair(*facts.machine, *facts.disk), file);
    }
    return sealed;
}

Result<JournalSummary> verify_file(const std::filesystem::path& file, const Reading& options,
                                   const SealedFiles& sealed) {
    auto journal = open_journal(file, may_look(options));
    if (!journal) return pass(journal);
    const JournalFacts& facts = (*journal)->facts();
    if (facts.format == JournalFormat::v3 && !facts.sealed && !options.allow_plain) {
        const auto other = sealed.find({*facts.machine, *facts.disk});
        if (other != sealed.end()) {
            return fail(ErrorKind::operator_needed,
                        "{}: it is not sealed and {} of the same disk is: anyone could have "
                        "written it; --allow-plain takes both",
                        file.native(), other->second.native());
        }
    }
    Progress progress("verifying", facts.file_bytes);
    uint64_t read_bytes = 0;
    DiskBounds bounds;
    bounds.begin(**journal, facts.first_position);
    auto summary = verify_journal(**journal, [&](const Record& record) {
        read_bytes += record.data.size();
        progress.at(std::min(read_bytes, facts.file_bytes));
        return bounds.add(record);
    });
    if (!summary) return pass(summary);
    if (bounds.outside() != 0) {
        summary->notices.push_back(fmt::format("{} ({} such records): hrl apply refuses it",
                                               bounds.problem(), bounds.outside()));
    }
    return summary;
}

}  // namespace

int verify(const VerifyOptions& options) {
    int status = kDone;
    auto json = nlohmann::ordered_json::array();
    // One file is no mixture.
    const SealedFiles sealed = options.files.size() > 1 && !options.journal.allow_plain
                                   ? find_sealed(options)
                                   : SealedFiles();
    for (const auto& file : options.files) {
        auto summary = verify_file(file, options.journal, sealed);
        if (!summary) {
            // The worst that was found decides: a file that could not be read is no proof.
            const bool corrupt = summary.error().kind == ErrorKind::corrupt;
            status = std::max(status, corrupt ? kDamaged : kRefused);
            json.push_back({{"file", file.native()},
                            {"ok", false},
                            {"damaged", corrupt},
                            {"error", summary.error().message}});
            if (!options.json) {
                std::string_view why = summary.error().message;
                const std::string prefix = file.native() + ": ";
                if (why.starts_with(prefix)) why.remove_prefix(prefix.size());
                print_out("{}: {}: {}\n", file.native(),
                          painted(Colour::red, corrupt ? "DAMAGED" : "not verified"), why);
            }
            continue;
        }
        const hrl::JournalFacts& facts = summary->facts;
        json.push_back(
            {{"file", file.native()},
             {"ok", true},
             {"format", to_string(facts.format)},
             {facts.format == hrl::JournalFormat::v2 ? "log" : "segment", to_string(facts.id)},
             {"first_position", facts.first_position},
             {"last_position", summary->last_position},
             {"records", summary->records},
             {"data_bytes", summary->data_bytes},
             {"file_bytes", facts.file_bytes},
             {"notices", summary->notices}});
        if (options.json) continue;
        print_out("{}: {}, {} records", file.native(), painted(Colour::green, "ok"),
                  summary->records);
        if (summary->records != 0) {
            print_out(", positions {} to {}", facts.first_position, summary->last_position);
        }
        print_out(", {}\n", bytes_text(facts.file_bytes));
        for (const auto& notice : summary->notices) {
            print_out("{}: {}: {}\n", file.native(), painted(Colour::yellow, "note"), notice);
        }
    }
    if (options.json) print_out("{}\n", json_text(json, 2));
    return status;
}

}  // namespace herald::hrl_tool
