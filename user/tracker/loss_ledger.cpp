// SPDX-License-Identifier: Apache-2.0
#include "user/tracker/loss_ledger.h"

namespace herald::tracker {

std::optional<Losses> LossLedger::both(const Losses& now) {
    const Losses fresh{now.submissions - weighed_->submissions,
                       now.completions - weighed_->completions};
    if (fresh.submissions == 0 || fresh.completions == 0) return std::nullopt;
    *weighed_ = now;
    idle_.reset();
    return fresh;
}

void LossLedger::looked(const Losses& now, bool idle, Time when) {
    // A busy look between two idle ones takes nothing away: what the first rests on is over.
    if (idle_ && idle_->losses != now) idle_.reset();
    if (!idle) return;
    if (!idle_) {
        idle_ = Look{now, when};
    } else if (when - idle_->when >= kSettled) {
        *weighed_ = now;
        idle_.reset();
    }
}

}  // namespace herald::tracker
