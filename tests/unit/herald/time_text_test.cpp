// SPDX-License-Identifier: Apache-2.0
#include "tools/herald/time_text.h"

#include <cstdlib>
#include <ctime>

#include "tests/catch.hpp"

using namespace herald;
using namespace herald::cli;

namespace {

constexpr uint64_t kSecond = 1'000'000'000;

// A zone without a database: one hour east of UTC, no summer time.
struct ZoneOneHourEast {
    ZoneOneHourEast() {
        ::setenv("TZ", "TST-1", 1);
        ::tzset();
    }
    ~ZoneOneHourEast() {
        ::unsetenv("TZ");
        ::tzset();
    }
};

}  // namespace

TEST_CASE("a moment with a zone is read exactly") {
    CHECK(parse_time("1970-01-01T00:00:00Z").value() == 0);
    CHECK(parse_time("2026-11-23T14:05:06Z").value() == 1795442706 * kSecond);
    CHECK(parse_time("2026-11-23t14:05:06z").value() == 1795442706 * kSecond);
    CHECK(parse_time("2026-11-23T15:05:06+01:00").value() == 1795442706 * kSecond);
    CHECK(parse_time("2026-11-23T08:35:06-05:30").value() == 1795442706 * kSecond);
    CHECK(parse_time("2026-11-23T14:05:06.25Z").value() == 1795442706 * kSecond + kSecond / 4);
    CHECK(parse_time("2024-02-29T00:00:00Z").value() == 1709164800 * kSecond);
    // Digits beyond nanoseconds are cut off.
    CHECK(parse_time("1970-01-01T00:00:00.0000000019Z").value() == 1);
}

TEST_CASE("a moment without a zone is local time") {
    const ZoneOneHourEast zone;
    CHECK(parse_time("2026-11-23 15:05:06").value() == 1795442706 * kSecond);
    CHECK(parse_time("2026-11-23 15:05").value() == 1795442700 * kSecond);
    CHECK(parse_time("2026-11-23T15:05").value() == 1795442700 * kSecond);
    CHECK(local_time(1795442706 * kSecond) == "2026-11-23 15:05:06");
}

TEST_CASE("what is not a moment is refused with the accepted forms") {
    for (const char* text : {"",
                             "now",
                             "2026-11-23",
                             "2026-11-23 14",
                             "2026-13-01 00:00",
                             "2026-00-01 00:00",
                             "2026-02-29 00:00",
                             "2026-04-31 00:00",
                             "2026-11-23 24:00",
                             "2026-11-23 14:60",
                             "2026-11-23 14:05:60",
                             "2026-11-23 14:05:06.",
                             "2026-11-23 14:05 ",
                             " 2026-11-23 14:05",
                             "2026-11-23T14:05:06+1",
                             "2026-11-23T14:05:06+24:00",
                             "1969-12-31T23:59:59Z",
                             "26-11-23 14:05",
                             "2026-11-23  14:05",
                             "1970-01-01T00:00:00+01:00"}) {
        CAPTURE(text);
        const auto time = parse_time(text);
        REQUIRE_FALSE(time);
        CHECK(time.error().message.find("2026-11-23 14:05") != std::string::npos);
    }
}

TEST_CASE("a moment is written in UTC with milliseconds") {
    CHECK(rfc3339_time(1795442706 * kSecond + 250'999'999) == "2026-11-23T14:05:06.250Z");
}
