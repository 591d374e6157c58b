// SPDX-License-Identifier: Apache-2.0
#include "tools/hrl/info_log.h"

#include "tools/hrl/text.h"

namespace herald::hrl_tool {

namespace {

using namespace herald::hrl;

std::string log_time(uint32_t time) { return time_text(v2::time_ns_of(time)); }

// Not verified by the format, so it is shown as far as it is text.
std::string creator_text(const v2::LogHeader& header) {
    std::string text;
    for (const char c : header.creator_application) text += c >= 0x20 && c < 0x7f ? c : ' ';
    text.erase(text.find_last_not_of(' ') + 1);
    return fmt::format("{}{}{}.{}", text, text.empty() ? "" : " ", header.creator_version >> 16,
                       header.creator_version & 0xffff);
}

std::string order_text(const v2::LogReader& log) {
    if (log.entry_order()) return to_string(*log.entry_order());
    return log.entry_count() == 0 ? "no entries" : "not proven by the places and times of entries";
}

}  // namespace

int info_of_log(const InfoOptions& options, const v2::LogReader& log, uint64_t file_bytes) {
    const v2::LogHeader& header = log.header();
    if (options.json) {
        const nlohmann::ordered_json json{{"file", options.file.native()},
                                          {"format", "hrl v2"},
                                          {"version", fmt::format("{:#010x}", header.version)},
                                          {"whole", log.whole()},
                                          {"loss", log.loss()},
                                          {"closed", header.end_offset != 0},
                                          {"log", to_string(header.id)},
                                          {"previous_log", to_string(header.previous_id)},
                                          {"created", log_time(header.time)},
                                          {"modified", log_time(header.modified_time)},
                                          {"creator", creator_text(header)},
                                          {"error_code", header.error_code},
                                          {"data_write_id", to_string(header.data_write_id)},
                                          {"entries", log.entry_count()},
                                          {"metadata_blocks", log.block_count()},
                                          {"metadata_bytes", header.metadata_bytes},
                                          {"entry_order", order_text(log)},
                                          {"end", log.end()},
                                          {"trailing_bytes", log.trailing_bytes()},
                                          {"file_bytes", file_bytes}};
        print_out("{}\n", json_text(json, 2));
    } else {
        const auto line = [](const char* name, const std::string& value) {
            print_out("{:<10} {}\n", name, value);
        };
        line("log", to_string(header.id));
        line("after", header.previous_id.is_nil() ? "none" : to_string(header.previous_id));
        line("format", fmt::format("Hyper-V Replica Log, version {:#010x}, by {}", header.version,
                                   creator_text(header)));
        line("created", log_time(header.time));
        line("modified", log_time(header.modified_time));
        line("entries",
             fmt::format("{} in {} metadata blocks of {}, {}", log.entry_count(), log.block_count(),
                         bytes_text(header.metadata_bytes), order_text(log)));
        if (header.error_code != 0) line("error", fmt::format("{:#010x}", header.error_code));
        line("size", fmt::format("{}, {} of it behind the end", bytes_text(file_bytes),
                                 bytes_text(log.trailing_bytes())));
        line("whole", log.whole() ? "yes, by header and metadata blocks (verify reads the rest)"
                                  : painted(Colour::red, "NO"));
    }
    return log.whole() ? kDone : report({ErrorKind::corrupt, log.loss(), 0});
}

}  // namespace herald::hrl_tool
