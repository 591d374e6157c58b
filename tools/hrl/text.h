// SPDX-License-Identifier: Apache-2.0
// How the hrl program writes and reads times and sizes, and writes JSON and colours.
#pragma once

#include <fmt/format.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <ctime>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "user/base/output.h"

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

// As time_text() writes it; the fraction, the Z and the time of day may be left out. UTC.
inline std::optional<uint64_t> parse_time(std::string_view text) {
    struct tm utc {};
    const std::string copy(text);
    const char* rest = ::strptime(copy.c_str(), "%Y-%m-%d", &utc);
    if (rest == nullptr) return std::nullopt;
    if (*rest == 'T' || *rest == ' ') rest = ::strptime(rest + 1, "%H:%M:%S", &utc);
    if (rest == nullptr) return std::nullopt;
    uint64_t fraction_ns = 0;
    if (*rest == '.') {
        uint64_t unit = 100'000'000;
        for (++rest; *rest >= '0' && *rest <= '9'; ++rest, unit /= 10) {
            fraction_ns += uint64_t(*rest - '0') * unit;
        }
    }
    if (*rest == 'Z') ++rest;
    const time_t seconds = ::timegm(&utc);
    if (*rest != '\0' || seconds < 0) return std::nullopt;
    return uint64_t(seconds) * 1'000'000'000 + fraction_ns;
}

// 4096, 64K, 10M, 2G, 1T: multiples of 1024.
inline std::optional<uint64_t> parse_bytes(std::string_view text) {
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc()) return std::nullopt;
    const std::string_view unit = text.substr(size_t(end - text.data()));
    if (unit.empty()) return value;
    const size_t power = std::string_view("KMGT").find(unit[0]);
    if (power == std::string_view::npos || (unit.size() > 1 && unit.substr(1) != "iB")) {
        return std::nullopt;
    }
    const unsigned shift = 10 * unsigned(power + 1);
    if (value > UINT64_MAX >> shift) return std::nullopt;
    return value << shift;
}

enum class Colour { none = 0, red = 31, green = 32, yellow = 33, blue = 34, grey = 90 };

// Coloured on a terminal, unless NO_COLOR is set; as it is elsewhere.
inline std::string painted(Colour colour, std::string_view text) {
    static const bool kPaint = ::isatty(STDOUT_FILENO) == 1 && std::getenv("NO_COLOR") == nullptr;
    if (!kPaint || colour == Colour::none) return std::string(text);
    return fmt::format("\x1b[{}m{}\x1b[0m", int(colour), text);
}

// 512 B, 64.0 KiB, 1.5 GiB
inline std::string bytes_text(uint64_t bytes) {
    static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    double value = double(bytes);
    size_t unit = 0;
    for (; value >= 1024 && unit < 5; ++unit) value /= 1024;
    return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} {}", value, kUnits[unit]);
}

// Bits of features: 0x00000005
inline std::string bits_text(uint32_t bits) { return fmt::format("{:#010x}", bits); }

// File names need not be UTF-8; what is not is shown as U+FFFD.
inline std::string json_text(const nlohmann::ordered_json& json, int indent = -1) {
    return json.dump(indent, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace herald::hrl_tool
