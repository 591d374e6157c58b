// SPDX-License-Identifier: Apache-2.0
// What the listing verbs print: JSON for scripts (field names as in the protocol; times as
// nanoseconds and RFC 3339) and tables for people.
// Callers: any thread; pure functions of what they are given and the clock passed in.
#pragma once

#include <span>
#include <string>

#include "user/wire/message_structs.h"

namespace herald::cli {

std::string disks_table(std::span<const wire::DiskInfo> disks, uint64_t now_ns);
std::string disks_json(std::span<const wire::DiskInfo> disks);
// Oldest first, so that the newest is next to the prompt.
std::string points_table(const wire::DiskInfo& disk, std::span<const wire::PointInfo> points,
                         uint64_t now_ns);
std::string points_json(const wire::DiskInfo& disk, std::span<const wire::PointInfo> points);
std::string status_text(const std::string& server, const wire::ServerStatus& status);
std::string status_json(const std::string& server, const wire::ServerStatus& status);

// "2.1 : 1", or "-" where nothing was sent.
std::string ratio_text(uint64_t raw_bytes, uint64_t sent_bytes);

}  // namespace herald::cli
