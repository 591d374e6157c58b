// SPDX-License-Identifier: Apache-2.0
#include "tools/hrl/text.h"
#include "tools/hrl/verbs.h"
#include "user/hrl/segment_reader.h"

namespace herald::hrl_tool {

namespace {

Result<hrl::SegmentSummary> verify_file(const std::filesystem::path& file) {
    auto source = hrl::file_source(file);
    if (!source) return pass(source);
    return hrl::verify_segment(std::move(*source));
}

}  // namespace

int verify(const VerifyOptions& options) {
    int status = kDone;
    auto json = nlohmann::ordered_json::array();
    for (const auto& file : options.files) {
        auto summary = verify_file(file);
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
                fmt::print("{}: {}: {}\n", file.native(), corrupt ? "DAMAGED" : "not verified",
                           why);
            }
            continue;
        }
        const uint64_t first = summary->header.first_position;
        json.push_back({{"file", file.native()},
                        {"ok", true},
                        {"segment", to_string(summary->header.segment)},
                        {"first_position", first},
                        {"last_position", summary->last_position},
                        {"records", summary->records},
                        {"raw_bytes", summary->raw_bytes},
                        {"file_bytes", summary->file_bytes}});
        if (!options.json) {
            fmt::print("{}: ok, {} records, positions {} to {}, {}\n", file.native(),
                       summary->records, first, summary->last_position,
                       bytes_text(summary->file_bytes));
        }
    }
    if (options.json) fmt::print("{}\n", json_text(json, 2));
    return status;
}

}  // namespace herald::hrl_tool
