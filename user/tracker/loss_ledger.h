// SPDX-License-Identifier: Apache-2.0
// LossLedger: decides when events that the kernel skipped may have hidden a write.
// One lost event of a write is covered by the other, so only a write that lost both is lost. That
// is possible when events of both kinds were lost since the last moment at which none was under
// way. Promise: losses are weighed off only when two looks at an idle disk, kSettled apart, found
// the same counts: a write whose submission was skipped is counted as in flight by the kernel only
// some instructions later, and one that lost its completion before the second look shows in its
// count. Callers: one thread; time, counts and idleness are given, so that each order of them can
// be tried. Owns: nothing that has to outlive a process but WeighedLosses, which its owner keeps.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

namespace herald::tracker {

struct Losses {
    uint64_t submissions = 0;
    uint64_t completions = 0;
    bool operator==(const Losses&) const = default;
};

class LossLedger {
  public:
    using Time = std::chrono::steady_clock::time_point;
    static constexpr std::chrono::milliseconds kSettled{100};

    // `weighed`: what needs no answer any more.
    explicit LossLedger(Losses& weighed) : weighed_(&weighed) {}

    bool any(const Losses& now) const { return now != *weighed_; }
    // The losses of each kind that together may have hidden a write, once; they are weighed off,
    // as the compare that they ask for answers all of them.
    std::optional<Losses> both(const Losses& now);
    // The disk was seen, `idle` or not, and the counts were the same before and after that look.
    void looked(const Losses& now, bool idle, Time when);

  private:
    Losses* weighed_;
    struct Look {
        Losses losses;
        Time when;
    };
    std::optional<Look> idle_;  // the first idle look with these counts
};

}  // namespace herald::tracker
