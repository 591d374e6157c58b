// SPDX-License-Identifier: Apache-2.0
// Moments as people write and read them.
// Callers: any thread. Failure: text that is not a moment is refused with the forms accepted.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "user/base/result.h"

namespace herald::cli {

// Nanoseconds since 1970. RFC 3339 ("2026-11-23T14:05:06.25+01:00", "...Z"), or without a zone
// in the host's local time: "2026-11-23 14:05", "2026-11-23 14:05:06".
Result<uint64_t> parse_time(std::string_view text);

std::string local_time(uint64_t time_ns);    // "2026-11-23 14:05:06", the host's zone
std::string rfc3339_time(uint64_t time_ns);  // "2026-11-23T13:05:06.250Z"

uint64_t now_ns();

}  // namespace herald::cli
