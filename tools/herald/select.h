// SPDX-License-Identifier: Apache-2.0
// Select: which disk and which recovery point a person means.
// Promise: nothing is guessed: a text that fits two things is refused with both named.
// Callers: any thread; pure functions. Failure: ENOENT lists what there is; EINVAL: ambiguous.
#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "user/base/result.h"
#include "user/wire/message_structs.h"

namespace herald::cli {

// By id, unique beginning of an id, name ("/dev/sda on web1"), the part of a name before " on ",
// or identity ("gpt:...").
Result<wire::DiskInfo> select_disk(std::span<const wire::DiskInfo> disks, std::string_view text);

struct PointChoice {
    std::string id;                   // an id or its unique beginning
    std::optional<uint64_t> time_ns;  // the newest at or before
    bool latest = false;
};

// `points` in stream order, as the server lists them.
Result<wire::PointInfo> select_point(std::span<const wire::PointInfo> points,
                                     const PointChoice& choice);

// The fewest leading characters, at least eight, that tell the ids apart.
size_t short_id_length(std::span<const wire::PointInfo> points);
size_t short_id_length(std::span<const wire::DiskInfo> disks);

}  // namespace herald::cli
