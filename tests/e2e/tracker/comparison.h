// SPDX-License-Identifier: Apache-2.0
// Comparison: whether blocks that differ between a disk and its replica were lost.
// A disk may change after the last drain, also below a frozen file system: ext4 discards from a
// work queue that a freeze does not wait for. What the tracker promises is that a block that
// differs is dirty, or that gap() says why it may not be. So the map is looked at after the blocks
// were compared: whatever changed them happened before, and its submission or completion is in the
// map. Promise: a map that was clean before (Replica::finish()) excuses no block that was lost
// earlier.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tests/e2e/tracker/request_log.h"
#include "tests/e2e/tracker/support.h"

namespace herald::test {

struct Comparison {
    uint64_t differing = 0;  // blocks
    uint64_t dirty = 0;      // of them: changed since, and known to be
    uint64_t lost = 0;       // of them: not dirty, and no gap says why
    std::optional<std::string> gap;
    std::string told;  // what is known of the blocks that differ, the lost ones first
};

Comparison compare(Replica& replica, tracker::Tracker& tracker, const RequestLog* log = nullptr);

// Passes and comparisons until nothing differs, something was lost or may have been, or too many.
struct Settled {
    Comparison last;
    uint64_t comparisons = 0;
    uint64_t late_blocks = 0;  // changed after the last drain, dirty again
    std::string late_told;     // of the newest of them
};
Settled settle(Replica& replica, tracker::Tracker& tracker, RequestLog* log = nullptr);

}  // namespace herald::test
