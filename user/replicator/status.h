// SPDX-License-Identifier: Apache-2.0
// DiskStatus: what the control socket says of one disk. Layout: docs/reference/control.md.
// Promise: status_is_honest: "protected" only when the disk is synchronised and the server answers;
// every other state has a cause and a remedy.
// Callers: any thread. A value.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "user/replicator/disk_wait.h"
#include "user/replicator/uploader.h"
#include "user/tracker/tracker.h"

namespace herald::replicator {

struct PointReport {
    Uuid id;
    std::string name;
    uint64_t time_ns = 0;
    uint64_t position = 0;
    double frozen_ms = 0;
    double hold_ms = 0;  // the part of it that a client's hold took
    hrl::Consistency consistency = hrl::Consistency::filesystem;
    // "vfat at /boot/efi: vfat has no freeze": on the disk, exact at the point, but not frozen.
    std::vector<std::string> not_frozen;
};

enum class WorkerPhase {
    attaching,  // no tracker yet, or again
    asking,     // for a session
    comparing,  // reading the disk against the server's digests
    scanning,   // more than a catch-up: initial or full
    catching_up,
    superseded,  // waiting before asking again
    stopped,
};

// What the disk's thread knows; the rest of a status follows from it and the uploader's view.
struct WorkerFacts {
    WorkerPhase phase = WorkerPhase::attaching;
    std::string tracker;
    std::string io_engine;
    std::string error;          // why the thread cannot go on; empty when it does
    std::string gap;            // why the last session began with a compare or a whole scan
    std::string point_refusal;  // of the newest scheduled point; empty when it landed
    bool synced = false;
    bool initial = false;  // the scan that runs is of a disk never synchronised
    uint64_t todo_blocks = 0;
    uint64_t in_flight_blocks = 0;
    uint64_t live_blocks = 0;
    uint64_t unreadable_blocks = 0;
    uint64_t first_unreadable = 0;
    uint64_t last_position = 0;
    std::optional<uint64_t> backlog_since_ns;
    uint64_t sync_done_bytes = 0;
    uint64_t sync_total_bytes = 0;
    uint64_t sync_began_ns = 0;  // 0: no sync runs
    std::optional<PointReport> last_point;
    uint64_t read_bytes = 0;
    double frozen_ms_total = 0;
    tracker::TrackerCounters counters;
};

struct DiskStatus {
    Uuid disk;
    std::string path;
    std::string identity;
    uint64_t disk_bytes = 0;
    size_t points_waiting = 0;  // asked for, and not begun
    // Set when the disk keeps its thread waiting for longer than one that works would: the facts
    // are from before that.
    std::optional<DiskWait::Silence> silent;
    WorkerFacts facts;
    Uploader::View server;
    uint64_t now_ns = 0;
};

struct Condition {
    std::string state;
    std::string cause;
    std::string remedy;
};

// The rule: state, cause and remedy.
Condition condition_of(const DiskStatus& status);
nlohmann::json to_json(const DiskStatus& status, bool with_counters);
nlohmann::json to_json(const PointReport& report);

}  // namespace herald::replicator
