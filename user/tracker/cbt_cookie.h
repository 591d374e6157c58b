// SPDX-License-Identifier: Apache-2.0
// The cookie that a replicator keeps with the driver: its Continuity, durable with the dirty map.
// Promise: at most HERALD_CBT_COOKIE_BYTES_MAX bytes; what is cut, changed or of another version is
// no cookie.
// Layout, little-endian: magic 4, version 4, disk 16, session 16, next_session 16, acked_position
// 8, synced 1, zero 3, sent count 4, for each {last_position 8, segment 16}; XXH3-64 of all
// before 8. Callers: any thread. Pure.
#pragma once

#include <optional>

#include "user/base/bytes.h"
#include "user/tracker/tracker.h"

namespace herald::tracker {

Bytes encode_cookie(const Continuity& continuity);
// Nothing: these bytes are none.
std::optional<Continuity> decode_cookie(ByteView bytes);

}  // namespace herald::tracker
