// SPDX-License-Identifier: Apache-2.0
#include "user/replicator/catch_up.h"

#include "tests/catch.hpp"

using namespace herald::replicator;
using Advice = CatchUp::Advice;

TEST_CASE("catch-up goes on while passes shrink what is left, then freezes") {
    CatchUp catch_up;
    REQUIRE(catch_up.after_pass(247u << 20) == Advice::another_pass);
    REQUIRE(catch_up.after_pass(16u << 20) == Advice::another_pass);
    REQUIRE(catch_up.after_pass(4u << 20) == Advice::freeze);
}

TEST_CASE("catch-up that no longer converges freezes if the rest fits the deadline") {
    CatchUp catch_up;
    REQUIRE(catch_up.after_pass(50u << 20) == Advice::another_pass);
    REQUIRE(catch_up.after_pass(50u << 20) == Advice::another_pass);
    REQUIRE(catch_up.after_pass(49u << 20) == Advice::freeze);
}

TEST_CASE("catch-up that can never fit is refused with the figures") {
    CatchUp catch_up;
    auto advice = Advice::another_pass;
    while (advice == Advice::another_pass) advice = catch_up.after_pass(4ull << 30);
    REQUIRE(advice == Advice::refuse);
    REQUIRE(catch_up.reason().find("4096 MiB") != std::string::npos);
    REQUIRE(catch_up.passes() <= CatchUpLimits{}.passes_max);
}
