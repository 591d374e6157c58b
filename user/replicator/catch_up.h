// SPDX-License-Identifier: Apache-2.0
// CatchUp decides, before a point, whether another pass would make the freeze shorter.
// Rule: freeze when little is left; go on while passes shrink what is left; when they no longer
// do, freeze if it can still fit the deadline, otherwise refuse with the figures.
// Callers: one thread, one object for each point. Sans I/O.
#pragma once

#include <cstdint>
#include <string>

namespace herald::replicator {

struct CatchUpLimits {
    uint64_t small_bytes = 4u << 20;    // read in a few milliseconds: no pass makes it better
    uint64_t large_bytes = 512u << 20;  // about a second of reading: more is not for a freeze
    unsigned passes_max = 12;
};

class CatchUp {
  public:
    explicit CatchUp(CatchUpLimits limits = {}) : limits_(limits) {}

    enum class Advice { another_pass, freeze, refuse };
    // After a pass: bytes dirty now.
    Advice after_pass(uint64_t dirty_bytes);
    // Why it was refused.
    const std::string& reason() const { return reason_; }
    unsigned passes() const { return passes_; }

  private:
    CatchUpLimits limits_;
    unsigned passes_ = 0;
    unsigned stalled_ = 0;  // passes in a row that left nearly as much as the one before
    uint64_t before_ = UINT64_MAX;
    std::string reason_;
};

}  // namespace herald::replicator
