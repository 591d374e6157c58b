// SPDX-License-Identifier: Apache-2.0
#include "user/replicator/continuity.h"

#include <algorithm>

namespace herald::replicator {

namespace {

// Why the map cannot be trusted, or empty.
std::string distrust(const tracker::Continuity& ours, const std::optional<std::string>& tracker_gap,
                     const wire::SessionGrant& grant) {
    if (tracker_gap) return *tracker_gap;
    if (ours.session.is_nil()) {
        return ours.synced ? "a compare of this disk with the server was not finished"
                           : "no record of an earlier session with this server";
    }
    if (grant.previous_session != ours.session) {
        return "the server's last session was not ours: this machine was cloned or reverted, or "
               "the server was restored from a backup";
    }
    if (grant.head < ours.acked_position) {
        return fmt::format("the server ends at position {}, but had acknowledged {}", grant.head,
                           ours.acked_position);
    }
    if (grant.head > 0 && grant.head_epoch >= grant.epoch) {
        return "the session asked for was granted and used before, which this machine does not "
               "remember: it was reverted to an earlier state, or is a clone";
    }
    const tracker::SentSegment head{grant.head, grant.head_segment};
    if (std::find(ours.sent.begin(), ours.sent.end(), head) == ours.sent.end()) {
        return fmt::format(
            "the server ends at position {} with a segment that this machine does not remember "
            "sending: it was reverted to an earlier state, or is a clone",
            grant.head);
    }
    return {};
}

}  // namespace

Verdict judge(const tracker::Continuity& ours, const std::optional<std::string>& tracker_gap,
              const wire::SessionGrant& grant) {
    Verdict verdict;
    verdict.gap = distrust(ours, tracker_gap, grant);
    if (verdict.gap.empty()) return verdict;
    if (grant.head == 0) {
        verdict.baseline = Baseline::initial;
        if (!ours.synced) verdict.gap.clear();
    } else {
        verdict.baseline = grant.digests ? Baseline::compare : Baseline::full;
    }
    return verdict;
}

const char* to_string(Baseline baseline) {
    switch (baseline) {
        case Baseline::continues:
            return "continues";
        case Baseline::initial:
            return "initial";
        case Baseline::compare:
            return "compare";
        case Baseline::full:
            return "full";
    }
    return "unknown";
}

}  // namespace herald::replicator
