// SPDX-License-Identifier: Apache-2.0
// judge() decides whether the dirty map covers everything that the server does not hold.
// Promise: `continues` only when the map and the server's head belong to one history: the epoch
// before the granted one was ours, the server still holds all that it acknowledged to us and
// ends with a segment that we remember sending, and the tracker has no gap. Everything else has a
// named cause and ends in a compare or a whole scan. Callers: any. Pure.
#pragma once

#include <optional>
#include <string>

#include "user/tracker/tracker.h"
#include "user/wire/message_structs.h"

namespace herald::replicator {

enum class Baseline {
    continues,  // the dirty map says what is missing
    initial,    // the server has nothing: the whole disk
    compare,    // read the disk, send what differs from the server's digests
    full,       // the server has no digests: the whole disk
};

struct Verdict {
    Baseline baseline = Baseline::continues;
    std::string gap;  // why not `continues`; empty at the very first sync
};

Verdict judge(const tracker::Continuity& ours, const std::optional<std::string>& tracker_gap,
              const wire::SessionGrant& grant);

const char* to_string(Baseline baseline);

}  // namespace herald::replicator
