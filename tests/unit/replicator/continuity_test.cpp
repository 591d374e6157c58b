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
        continuity.sent_position = 130;
        continuity.synced = true;
        grant.previous_session = ours;
        grant.head = 120;
        grant.epoch = 8;
        grant.head_epoch = 7;
        grant.digests = true;
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
    grant.head = 100;
    REQUIRE(judge(continuity, std::nullopt, grant).baseline == Baseline::continues);
    grant.head = 0;
    const Verdict verdict = judge(continuity, std::nullopt, grant);
    REQUIRE(verdict.baseline == Baseline::initial);
    REQUIRE_FALSE(verdict.gap.empty());
}

TEST_CASE_METHOD(Case, "a server that holds more than was sent leads to a compare") {
    // A snapshot was reverted: session and acknowledged position are those of before.
    grant.head = 131;
    REQUIRE(judge(continuity, std::nullopt, grant).baseline == Baseline::compare);
    grant.head = 130;
    REQUIRE(judge(continuity, std::nullopt, grant).baseline == Baseline::continues);
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
