// SPDX-License-Identifier: Apache-2.0
// EbpfState: what has to be remembered exactly as long as the dirty map of one disk: whom the
// pins belong to, what the replicator must not forget, and a gap that was not dealt with.
// Promise: plain memory of a pinned map, so it survives SIGKILL and not a reboot; a reader sees the
// old continuity or the new one, whatever instruction the writer died at.
// Callers: the one process that holds the disk's lock.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "user/tracker/ebpf_programs.h"
#include "user/tracker/loss_ledger.h"
#include "user/tracker/tracker.h"

namespace herald::tracker {

struct SentSegmentDisk {
    uint64_t last_position;
    std::array<std::byte, 16> segment;
};

struct ContinuityDisk {
    std::array<std::byte, 16> disk, session, next_session;
    uint64_t acked_position;
    uint64_t synced;
    uint64_t sent_count;
    SentSegmentDisk sent[HERALD_SENT_SEGMENTS_MAX];
};

struct StateDisk {
    uint32_t layout;
    uint32_t gap_set;
    std::array<std::byte, 16> disk;
    char boot_id[40];
    uint64_t dev, diskseq, bytes;
    EbpfIds ids;
    // Event losses up to here were weighed: see EbpfTracker::drain().
    Losses lost;
    uint64_t passthrough, table_full;
    char gap[256];
    uint64_t continuity_number;  // slot number & 1 is the valid one
    ContinuityDisk continuity[2];
};

class EbpfState {
  public:
    explicit EbpfState(StateDisk& disk) : disk_(&disk) {}

    StateDisk& disk() { return *disk_; }
    const StateDisk& disk() const { return *disk_; }

    std::optional<std::string> gap() const;
    // Keeps the first gap: later ones are its consequences, and one compare answers all.
    void set_gap(std::string_view why);
    void clear_gap();
    Continuity continuity() const;
    void set_continuity(const Continuity& continuity);

  private:
    StateDisk* disk_;
};

}  // namespace herald::tracker
