// SPDX-License-Identifier: Apache-2.0
#include "user/replicator/continuity.h"

#include "tests/catch.hpp"

using namespace herald;
using namespace herald::replicator;

namespace {

struct Case {
    Uuid ours = Uuid::random();
    tracker::Continuity continuity;
    wire::SessionGrant grant;
    Case() {
        continuity.session = ours;
        continuity.acked_position = 100;
        continuity.sent = {{100, Uuid::random()}, {120, Uuid::random()}, {130, Uuid::random()}};
        continuity.synced = true;
        grant.previous_session = ours;
        end_at(1);
        grant.epoch = 8;
        grant.head_epoch = 7;
        grant.digests = true;
    }
    // The server ends with this one of the segments that were sent.
    void end_at(size_t sent) {
        grant.head = continuity.sent[sent].last_position;
        grant.head_segment = continuity.sent[sent].segment;
    }
};

}  // namespace

TEST_CASE_METHOD(Case, "an unbroken history continues") {
    const Verdict verdict = judge(continuity, std::nullopt, grant);
    REQUIRE(verdict.baseline == Baseline::continues);
    REQUIRE(verdict.gap.empty());
}

TEST_CASE_METHOD(Case, "a tracker's gap leads to a compare that names it") {
    const Verdict verdict = judge(continuity, "host restarted", grant);
    REQUIRE(verdict.baseline == Baseline::compare);
    REQUIRE(verdict.gap == "host restarted");
}

TEST_CASE_METHOD(Case, "somebody else's session in between leads to a compare") {
    grant.previous_session = Uuid::random();
    REQUIRE(judge(continuity, std::nullopt, grant).baseline == Baseline::compare);
    grant.digests = false;
    REQUIRE(judge(continuity, std::nullopt, grant).baseline == Baseline::full);
}

TEST_CASE_METHOD(Case, "a server that lost what it acknowledged leads to a compare") {
    grant.head = 99;
    REQUIRE(judge(continuity, std::nullopt, grant).baseline == Baseline::compare);
    end_at(0);
    REQUIRE(judge(continuity, std::nullopt, grant).baseline == Baseline::continues);
    grant.head = 0;
    const Verdict verdict = judge(continuity, std::nullopt, grant);
    REQUIRE(verdict.baseline == Baseline::initial);
    REQUIRE_FALSE(verdict.gap.empty());
}

TEST_CASE_METHOD(Case, "every segment that was sent may be the one the server ends with") {
    for (size_t sent = 0; sent < continuity.sent.size(); ++sent) {
        end_at(sent);
        REQUIRE(judge(continuity, std::nullopt, grant).baseline == Baseline::continues);
    }
}

TEST_CASE_METHOD(Case, "a server that ends with a segment nobody here sent leads to a compare") {
    // A clone's, at a position that this machine sent as well.
    grant.head_segment = Uuid::random();
    REQUIRE(judge(continuity, std::nullopt, grant).baseline == Baseline::compare);
    // A later state's, before a snapshot was reverted.
    grant.head = 131;
    REQUIRE(judge(continuity, std::nullopt, grant).baseline == Baseline::compare);
}

TEST_CASE_METHOD(Case, "a session that was used before leads to a compare") {
    // A snapshot taken between asking and the grant was reverted.
    grant.head_epoch = 8;
    REQUIRE(judge(continuity, std::nullopt, grant).baseline == Baseline::compare);
}

TEST_CASE_METHOD(Case, "an unfinished compare is begun again") {
    continuity.session = {};
    grant.previous_session = {};
    REQUIRE(judge(continuity, std::nullopt, grant).baseline == Baseline::compare);
}

TEST_CASE("the very first session is an initial sync and no gap") {
    const Verdict verdict = judge({}, "first attach", {});
    REQUIRE(verdict.baseline == Baseline::initial);
    REQUIRE(verdict.gap.empty());
}
