// SPDX-License-Identifier: Apache-2.0
#include "tools/hrl/inputs.h"
#include "tools/hrl/progress.h"
#include "tools/hrl/text.h"
#include "tools/hrl/verbs.h"

namespace herald::hrl_tool {

namespace {

Result<hrl::JournalSummary> verify_file(const std::filesystem::path& file,
                                        const hrl::JournalOptions& options) {
    auto journal = open_journal(file, may_look(options));
    if (!journal) return pass(journal);
    Progress progress("verifying", (*journal)->facts().file_bytes);
    uint64_t read_bytes = 0;
    return hrl::verify_journal(**journal, [&](const hrl::Record& record) {
        read_bytes += record.data.size();
        progress.at(std::min(read_bytes, (*journal)->facts().file_bytes));
        return Result<void>();
    });
}

}  // namespace

int verify(const VerifyOptions& options) {
    int status = kDone;
    auto json = nlohmann::ordered_json::array();
    for (const auto& file : options.files) {
        auto summary = verify_file(file, options.journal);
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
                fmt::print("{}: {}: {}\n", file.native(),
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
        fmt::print("{}: {}, {} records", file.native(), painted(Colour::green, "ok"),
                   summary->records);
        if (summary->records != 0) {
            fmt::print(", positions {} to {}", facts.first_position, summary->last_position);
        }
        fmt::print(", {}\n", bytes_text(facts.file_bytes));
        for (const auto& notice : summary->notices) {
            fmt::print("{}: {}: {}\n", file.native(), painted(Colour::yellow, "note"), notice);
        }
    }
    if (options.json) fmt::print("{}\n", json_text(json, 2));
    return status;
}

}  // namespace herald::hrl_tool
