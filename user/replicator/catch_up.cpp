// SPDX-License-Identifier: Apache-2.0
#include "user/replicator/catch_up.h"

#include <fmt/format.h>

namespace herald::replicator {

CatchUp::Advice CatchUp::after_pass(uint64_t dirty_bytes) {
    ++passes_;
    if (dirty_bytes <= limits_.small_bytes) return Advice::freeze;
    stalled_ = dirty_bytes > before_ / 4 * 3 ? stalled_ + 1 : 0;
    before_ = dirty_bytes;
    if (stalled_ < 2 && passes_ < limits_.passes_max) return Advice::another_pass;
    if (dirty_bytes <= limits_.large_bytes) return Advice::freeze;
    reason_ = fmt::format(
        "{} MiB are still dirty after {} passes: the disk is written faster than it is sent",
        dirty_bytes >> 20, passes_);
    return Advice::refuse;
}

}  // namespace herald::replicator
