// SPDX-License-Identifier: Apache-2.0
#include "user/replicator/status.h"

#include <algorithm>

#include "herald/limits.h"

namespace herald::replicator {

namespace {

// Trouble that a retry a moment later ends is not worth alarming anybody.
constexpr std::chrono::milliseconds kTroubleGrace{3000};

Condition server_trouble(const Failure& failure) {
    switch (failure.kind) {
        case FailureKind::full:
            return {"degraded", "server full: " + failure.message,
                    "free space at the server; changes wait in the dirty map and nothing is lost"};
        case FailureKind::busy:
        case FailureKind::ahead:
            return {"degraded", "server busy: " + failure.message,
                    "nothing, if it passes; otherwise look at the server's status"};
        case FailureKind::refused:
            return {"degraded", "server refuses: " + failure.message,
                    "check certificates and the machine's enrolment"};
        default:
            return {"degraded", "server unreachable: " + failure.message,
                    "check network, address and that herald-process-server runs; changes wait in "
                    "the dirty map"};
    }
}

}  // namespace

Condition condition_of(const DiskStatus& status) {
    const WorkerFacts& facts = status.facts;
    if (facts.phase == WorkerPhase::stopped) {
        return {"stopped", "the replicator is stopping; writes are still tracked",
                "start herald-replicator"};
    }
    if (status.silent) {
        return {"degraded",
                fmt::format("{} has not answered for {} s: what is written to the disk is noted, "
                            "and is not read meanwhile",
                            status.silent->what, status.silent->since.count()),
                "look at the disk, its cable and path, and the kernel's log; Herald goes on by "
                "itself when it answers"};
    }
    if (!facts.error.empty()) {
        return {"degraded", facts.error, "see the cause; it is tried again by itself"};
    }
    if (facts.phase == WorkerPhase::superseded) {
        return {"degraded", "superseded by a newer session: another replicator took this disk over",
                "if this machine was cloned, give the clone an identity of its own; otherwise "
                "nothing: a new session with a compare follows"};
    }
    const auto& trouble = status.server.trouble;
    if (trouble && (status.server.trouble_age > kTroubleGrace ||
                    trouble->kind == FailureKind::full || trouble->kind == FailureKind::refused)) {
        return server_trouble(*trouble);
    }
    if (facts.phase == WorkerPhase::attaching || facts.phase == WorkerPhase::asking) {
        return {"starting", "attaching the tracker and asking the server for a session", ""};
    }
    if (facts.phase == WorkerPhase::comparing) {
        return {"resync", "digest compare: " + facts.gap, "nothing: it ends by itself"};
    }
    if (facts.unreadable_blocks > 0) {
        return {"degraded",
                fmt::format("{} blocks of 64 KiB cannot be read, the first at byte {}",
                            facts.unreadable_blocks, facts.first_unreadable * HERALD_BLOCK_BYTES),
                "replace the disk, or rewrite those blocks; no point can be taken meanwhile"};
    }
    if (!facts.synced) {
        return {"initial sync", "the server does not have the whole disk yet",
                "nothing: it ends by itself"};
    }
    if (facts.phase == WorkerPhase::scanning) {
        return {"resync", facts.gap.empty() ? "full scan ordered by an operator" : facts.gap,
                "nothing: it ends by itself"};
    }
    if (!facts.point_refusal.empty()) {
        return {"degraded", "point refused: " + facts.point_refusal,
                "remove the cause; the next scheduled point tries again"};
    }
    return {"protected", "", ""};
}

nlohmann::json to_json(const PointReport& report) {
    return {{"id", to_string(report.id)},
            {"name", report.name},
            {"time_ns", report.time_ns},
            {"position", report.position},
            {"frozen_ms", report.frozen_ms},
            {"hold_ms", report.hold_ms},
            {"consistency", hrl::to_string(report.consistency)},
            {"not_frozen", report.not_frozen}};
}

nlohmann::json to_json(const DiskStatus& status, bool with_counters) {
    const WorkerFacts& facts = status.facts;
    const Condition condition = condition_of(status);
    nlohmann::json json{
        {"disk", to_string(status.disk)},
        {"path", status.path},
        {"identity", status.identity},
        {"bytes", status.disk_bytes},
        {"tracker", facts.tracker},
        {"state", condition.state},
        {"cause", condition.cause},
        {"remedy", condition.remedy},
        {"epoch", status.server.grant ? status.server.grant->epoch : 0},
        {"head", std::max(facts.last_position, status.server.received)},
        {"received", status.server.received},
        {"stored", status.server.stored},
        {"todo_blocks", facts.todo_blocks},
        {"in_flight_blocks", facts.in_flight_blocks},
        {"live_blocks", facts.live_blocks},
        {"rpo_s", nullptr},
        {"backlog_age_s", nullptr},
        {"synced",
         facts.synced && facts.sync_began_ns == 0 &&
             (facts.phase == WorkerPhase::catching_up || facts.phase == WorkerPhase::stopped)},
        {"sync", nullptr},
        {"last_point", nullptr},
        {"points_waiting", status.points_waiting},
        {"io_engine", facts.io_engine},
        {"sent_bytes", status.server.sent_bytes},
        {"raw_bytes", status.server.raw_bytes},
        {"read_bytes", facts.read_bytes},
        {"unsent_bytes", status.server.unstored_bytes},
        {"unreadable_blocks", facts.unreadable_blocks},
        {"gap", facts.gap},
        {"frozen_ms_total", facts.frozen_ms_total},
    };
    if (facts.last_point) {
        json["last_point"] = to_json(*facts.last_point);
        const uint64_t time = facts.last_point->time_ns;
        json["rpo_s"] = status.now_ns > time ? double(status.now_ns - time) / 1e9 : 0.0;
    }
    if (facts.backlog_since_ns) {
        const uint64_t since = *facts.backlog_since_ns;
        json["backlog_age_s"] = status.now_ns > since ? double(status.now_ns - since) / 1e9 : 0.0;
    }
    if (facts.sync_began_ns != 0) {
        const double seconds = status.now_ns > facts.sync_began_ns
                                   ? double(status.now_ns - facts.sync_began_ns) / 1e9
                                   : 0;
        const double rate = seconds > 0 ? double(facts.sync_done_bytes) / seconds : 0;
        const uint64_t left = facts.sync_total_bytes > facts.sync_done_bytes
                                  ? facts.sync_total_bytes - facts.sync_done_bytes
                                  : 0;
        json["sync"] = {{"done_bytes", facts.sync_done_bytes},
                        {"total_bytes", facts.sync_total_bytes},
                        {"rate_bytes_s", rate},
                        {"eta_s", nullptr}};
        if (rate > 0) json["sync"]["eta_s"] = double(left) / rate;
    }
    if (with_counters) {
        json["counters"] = {{"submissions", facts.counters.submissions},
                            {"completions", facts.counters.completions},
                            {"missed_events", facts.counters.missed_events},
                            {"open_extents", facts.counters.open_extents}};
    }
    return json;
}

}  // namespace herald::replicator
