// SPDX-License-Identifier: Apache-2.0
#include "user/replicator/backlog.h"

#include "herald/limits.h"
#include "tests/catch.hpp"

using herald::replicator::Backlog;

TEST_CASE("backlog age counts from the pass before the one last fully received") {
    Backlog backlog;
    REQUIRE_FALSE(backlog.since_ns());
    backlog.pass_ended(100, 10);
    backlog.pass_ended(200, 20);
    backlog.pass_ended(300, 30);
    backlog.received(19);
    REQUIRE_FALSE(backlog.since_ns());
    backlog.received(20);
    REQUIRE(backlog.since_ns() == 100);
    backlog.received(1000);
    REQUIRE(backlog.since_ns() == 200);
}

TEST_CASE("backlog joins passes rather than growing without bound or looking younger") {
    Backlog backlog;
    for (uint64_t i = 1; i <= 2 * HERALD_BACKLOG_PASSES_MAX; ++i) backlog.pass_ended(i, i);
    backlog.received(2 * HERALD_BACKLOG_PASSES_MAX);
    REQUIRE(backlog.since_ns() == HERALD_BACKLOG_PASSES_MAX - 1);
}
