// SPDX-License-Identifier: Apache-2.0
#include "tools/herald/time_text.h"

#include <chrono>
#include <ctime>
#include <optional>

namespace herald::cli {

namespace {

constexpr uint64_t kNsPerSecond = 1'000'000'000;

// Takes numbers and separators from the front of a text; every step says whether it could.
class Scanner {
  public:
    explicit Scanner(std::string_view text) : rest_(text) {}

    std::optional<int> digits(size_t count) {
        if (rest_.size() < count) return {};
        int value = 0;
        for (size_t i = 0; i < count; ++i) {
            if (rest_[i] < '0' || rest_[i] > '9') return {};
            value = value * 10 + (rest_[i] - '0');
        }
        rest_.remove_prefix(count);
        return value;
    }
    // The character taken, or 0.
    char one_of(std::string_view choices) {
        if (rest_.empty() || choices.find(rest_[0]) == std::string_view::npos) return 0;
        const char taken = rest_[0];
        rest_.remove_prefix(1);
        return taken;
    }
    bool done() const { return rest_.empty(); }

  private:
    std::string_view rest_;
};

bool is_leap(int year) { return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0; }

int days_of_month(int year, int month) {
    static constexpr int kDays[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return month == 2 && is_leap(year) ? 29 : kDays[month - 1];
}

struct Moment {
    std::tm clock{};
    uint64_t fraction_ns = 0;
    std::optional<long> zone_s;  // east of UTC; nothing: local time
};

std::optional<Moment> scan_moment(std::string_view text) {
    Scanner scan(text);
    Moment moment;
    const auto year = scan.digits(4);
    if (!year || *year < 1970 || !scan.one_of("-")) return {};
    const auto month = scan.digits(2);
    if (!month || *month < 1 || *month > 12 || !scan.one_of("-")) return {};
    const auto day = scan.digits(2);
    if (!day || *day < 1 || *day > days_of_month(*year, *month) || !scan.one_of("Tt ")) return {};
    const auto hour = scan.digits(2);
    if (!hour || *hour > 23 || !scan.one_of(":")) return {};
    const auto minute = scan.digits(2);
    if (!minute || *minute > 59) return {};
    int second = 0;
    if (scan.one_of(":")) {
        const auto value = scan.digits(2);
        if (!value || *value > 59) return {};
        second = *value;
        if (scan.one_of(".")) {
            uint64_t unit = kNsPerSecond / 10;
            auto digit = scan.digits(1);
            if (!digit) return {};
            for (; digit; digit = scan.digits(1), unit /= 10)
                moment.fraction_ns += uint64_t(*digit) * unit;
        }
    }
    if (scan.one_of("Zz")) {
        moment.zone_s = 0;
    } else if (const char sign = scan.one_of("+-")) {
        const auto zone_hour = scan.digits(2);
        if (!zone_hour || *zone_hour > 23 || !scan.one_of(":")) return {};
        const auto zone_minute = scan.digits(2);
        if (!zone_minute || *zone_minute > 59) return {};
        moment.zone_s = (*zone_hour * 3600L + *zone_minute * 60L) * (sign == '-' ? -1 : 1);
    }
    if (!scan.done()) return {};
    moment.clock.tm_year = *year - 1900;
    moment.clock.tm_mon = *month - 1;
    moment.clock.tm_mday = *day;
    moment.clock.tm_hour = *hour;
    moment.clock.tm_min = *minute;
    moment.clock.tm_sec = second;
    moment.clock.tm_isdst = -1;
    return moment;
}

std::string date_and_time(const std::tm& clock, char between) {
    return fmt::format("{:04}-{:02}-{:02}{}{:02}:{:02}:{:02}", clock.tm_year + 1900,
                       clock.tm_mon + 1, clock.tm_mday, between, clock.tm_hour, clock.tm_min,
                       clock.tm_sec);
}

}  // namespace

Result<uint64_t> parse_time(std::string_view text) {
    auto moment = scan_moment(text);
    time_t seconds = -1;
    if (moment)
        seconds = moment->zone_s ? ::timegm(&moment->clock) - *moment->zone_s
                                 : std::mktime(&moment->clock);
    if (seconds < 0)
        return fail(ErrorKind::operator_needed,
                    "'{}' is not a moment: write 2026-11-23T14:05:06Z, 2026-11-23T14:05:06+01:00, "
                    "or in local time '2026-11-23 14:05' or '2026-11-23 14:05:06'",
                    text.substr(0, 64));
    return uint64_t(seconds) * kNsPerSecond + moment->fraction_ns;
}

std::string local_time(uint64_t time_ns) {
    const time_t seconds = time_t(time_ns / kNsPerSecond);
    std::tm clock{};
    ::localtime_r(&seconds, &clock);
    return date_and_time(clock, ' ');
}

std::string rfc3339_time(uint64_t time_ns) {
    const time_t seconds = time_t(time_ns / kNsPerSecond);
    std::tm clock{};
    ::gmtime_r(&seconds, &clock);
    return fmt::format("{}.{:03}Z", date_and_time(clock, 'T'), time_ns % kNsPerSecond / 1'000'000);
}

uint64_t now_ns() {
    return uint64_t(std::chrono::duration_cast<std::chrono::nanoseconds>(
                        std::chrono::system_clock::now().time_since_epoch())
                        .count());
}

}  // namespace herald::cli
