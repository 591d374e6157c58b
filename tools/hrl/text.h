// SPDX-License-Identifier: Apache-2.0
// How the hrl program writes times, sizes and JSON.
#pragma once

#include <fmt/format.h>

#include <cmath>
#include <ctime>
#include <nlohmann/json.hpp>
#include <string>

namespace herald::hrl_tool {

// 2024-02-29T12:00:00.123456789Z
inline std::string time_text(uint64_t time_ns) {
    const time_t seconds = time_t(time_ns / 1'000'000'000);
    struct tm utc {};
    if (::gmtime_r(&seconds, &utc) == nullptr) return fmt::format("{} ns", time_ns);
    return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:09}Z", utc.tm_year + 1900,
                       utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec,
                       time_ns % 1'000'000'000);
}

// 512 B, 64.0 KiB, 1.5 GiB
inline std::string bytes_text(uint64_t bytes) {
    static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    double value = double(bytes);
    size_t unit = 0;
    for (; value >= 1024 && unit < 5; ++unit) value /= 1024;
    return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} {}", value, kUnits[unit]);
}

// File names need not be UTF-8; what is not is shown as U+FFFD.
inline std::string json_text(const nlohmann::ordered_json& json, int indent = -1) {
    return json.dump(indent, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace herald::hrl_tool
