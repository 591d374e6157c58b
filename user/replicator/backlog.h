// SPDX-License-Identifier: Apache-2.0
// Backlog says how old the newest write may be that the server does not have: now minus the start
// of the drain pass before the one last fully received. A write that completed before a pass
// began is in that pass; one that straddles its begin is in the pass after it.
// Callers: one thread. Sans I/O. Memory: HERALD_BACKLOG_PASSES_MAX passes; when more are under
// way neighbours are joined, which makes the answer older, never younger.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>

namespace herald::replicator {

class Backlog {
  public:
    // A pass ended; everything it found is at or before this position.
    void pass_ended(uint64_t started_ns, uint64_t last_position);
    void received(uint64_t position);
    // A new session: what was under way will be sent again by later passes.
    void reset() { under_way_.clear(); }
    // Since when writes may be missing at the server; nothing until two passes were received.
    std::optional<uint64_t> since_ns() const;

  private:
    struct Pass {
        uint64_t started_ns = 0;
        uint64_t last_position = 0;
    };
    std::deque<Pass> under_way_;
    uint64_t received_start_ns_ = 0;  // of the pass last fully received
    uint64_t before_start_ns_ = 0;    // of the one before it
};

}  // namespace herald::replicator
