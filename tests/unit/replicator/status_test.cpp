// SPDX-License-Identifier: Apache-2.0
#include "user/replicator/status.h"

#include "tests/catch.hpp"

using namespace herald;
using namespace herald::replicator;

namespace {

DiskStatus healthy() {
    DiskStatus status;
    status.facts.phase = WorkerPhase::catching_up;
    status.facts.synced = true;
    status.server.grant.emplace();
    status.now_ns = 10'000'000'000;
    return status;
}

DiskStatus troubled(FailureKind kind, uint64_t age_ms) {
    DiskStatus status = healthy();
    status.server.trouble = Failure{kind, "why", 0};
    status.server.trouble_age = std::chrono::milliseconds(age_ms);
    return status;
}

bool says(const std::string& text, const char* part) {
    return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("a synchronised disk with an answering server is protected, with no cause") {
    const Condition condition = condition_of(healthy());
    REQUIRE(condition.state == "protected");
    REQUIRE(condition.cause.empty());
}

TEST_CASE("a disk that does not answer is not protected, whatever was known of it") {
    DiskStatus status = healthy();
    status.silent = DiskWait::Silence{"the disk", std::chrono::seconds(35)};
    const Condition condition = condition_of(status);
    REQUIRE(condition.state == "degraded");
    REQUIRE(says(condition.cause, "not answered for 35 s"));
    REQUIRE_FALSE(condition.remedy.empty());
}

TEST_CASE("every state that is not protected has a cause") {
    DiskStatus status = healthy();
    for (auto phase : {WorkerPhase::attaching, WorkerPhase::asking, WorkerPhase::comparing,
                       WorkerPhase::scanning, WorkerPhase::superseded, WorkerPhase::stopped}) {
        status.facts.phase = phase;
        REQUIRE(condition_of(status).state != "protected");
        REQUIRE_FALSE(condition_of(status).cause.empty());
    }
    status = healthy();
    status.facts.synced = false;
    REQUIRE(condition_of(status).state == "initial sync");
    status = healthy();
    status.facts.error = "the disk is gone";
    REQUIRE(condition_of(status).cause == "the disk is gone");
    status = healthy();
    status.facts.unreadable_blocks = 2;
    status.facts.first_unreadable = 3;
    REQUIRE(says(condition_of(status).cause, "196608"));
    status = healthy();
    status.facts.point_refusal = "no guardian";
    REQUIRE(says(condition_of(status).cause, "no guardian"));
}

TEST_CASE("an initial sync that unreadable blocks keep from ending says so") {
    DiskStatus status = healthy();
    status.facts.synced = false;
    status.facts.unreadable_blocks = 1;
    REQUIRE(condition_of(status).state == "degraded");
    REQUIRE(says(condition_of(status).cause, "cannot be read"));
}

TEST_CASE("server trouble is named, once it has lasted") {
    REQUIRE(condition_of(troubled(FailureKind::unreachable, 100)).state == "protected");
    REQUIRE(says(condition_of(troubled(FailureKind::unreachable, 5000)).cause, "unreachable"));
    REQUIRE(says(condition_of(troubled(FailureKind::full, 0)).cause, "full"));
    REQUIRE(says(condition_of(troubled(FailureKind::refused, 0)).cause, "refuses"));
}

TEST_CASE("rpo counts from the newest point and is null without one") {
    DiskStatus status = healthy();
    REQUIRE(to_json(status, false)["rpo_s"].is_null());
    status.facts.last_point = PointReport{};
    status.facts.last_point->time_ns = 7'000'000'000;
    REQUIRE(to_json(status, false)["rpo_s"] == 3.0);
    REQUIRE_FALSE(to_json(status, false).contains("counters"));
    REQUIRE(to_json(status, true).contains("counters"));
}
