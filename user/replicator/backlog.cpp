// SPDX-License-Identifier: Apache-2.0
#include "user/replicator/backlog.h"

#include "herald/limits.h"

namespace herald::replicator {

void Backlog::pass_ended(uint64_t started_ns, uint64_t last_position) {
    if (under_way_.size() >= HERALD_BACKLOG_PASSES_MAX) {
        under_way_.back().last_position = last_position;
        return;
    }
    under_way_.push_back({started_ns, last_position});
}

void Backlog::received(uint64_t position) {
    while (!under_way_.empty() && under_way_.front().last_position <= position) {
        before_start_ns_ = received_start_ns_;
        received_start_ns_ = under_way_.front().started_ns;
        under_way_.pop_front();
    }
}

std::optional<uint64_t> Backlog::since_ns() const {
    if (before_start_ns_ == 0) return std::nullopt;
    return before_start_ns_;
}

}  // namespace herald::replicator
