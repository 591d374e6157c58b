// SPDX-License-Identifier: Apache-2.0
#include <spdlog/spdlog.h>

#include <cstdlib>
#include <iostream>

#include "tests/catch.hpp"
#include "tests/sim/world.h"

using namespace herald;
using namespace herald::sim;

namespace {

uint64_t runs_of_tier() {
    const char* tier = std::getenv("HERALD_TIER");
    if (tier && std::string_view(tier) == "nightly") return 20'000;
    if (tier && std::string_view(tier) == "ci") return 1'500;
    return 150;
}

std::string text_of(const char* name) {
    const char* value = std::getenv(name);
    return value ? value : "";
}

constexpr uint64_t kEvents = 20'000;

}  // namespace

TEST_CASE("every promise holds after every event, whatever fails") {
    spdlog::set_level(spdlog::level::off);
    const std::string seed_text = text_of("HERALD_SEED");
    const auto broken = parse_break(text_of("HERALD_SIM_BREAK"));
    REQUIRE(broken);
    uint64_t first = seed_text.empty() ? std::random_device{}() : std::stoull(seed_text);
    const uint64_t runs = seed_text.empty() ? runs_of_tier() : 1;
    std::cout << "HERALD_SEED from " << first << ", " << runs << " runs" << std::endl;
    Outcome total;
    for (uint64_t seed = first; seed < first + runs; ++seed) {
        const Outcome outcome = World(seed, *broken).run(kEvents);
        if (!outcome.failure.empty()) FAIL(outcome.failure);
        total.points += outcome.points;
        total.agent_crashes += outcome.agent_crashes;
        total.server_crashes += outcome.server_crashes;
        total.compares += outcome.compares;
        total.segments += outcome.segments;
        total.crashed_at.insert(outcome.crashed_at.begin(), outcome.crashed_at.end());
    }
    std::cout << total.segments << " segments, " << total.points << " points, "
              << total.agent_crashes << " agent crashes, " << total.server_crashes
              << " server crashes, " << total.compares << " compares; crashed at "
              << total.crashed_at.size() << " kinds of step:";
    for (const std::string& step : total.crashed_at) std::cout << ' ' << step;
    std::cout << std::endl;
    CHECK(total.points > runs);
    if (runs > 100) CHECK(total.crashed_at.size() >= 20);
}

TEST_CASE("a broken rule is noticed within a normal number of runs") {
    spdlog::set_level(spdlog::level::off);
    const auto broken =
        GENERATE(Break::early_clear, Break::trust_always, Break::no_open_marks, Break::tag_anywhere,
                 Break::skip_compare, Break::forget_sent, Break::old_epoch);
    CAPTURE(int(broken));
    bool noticed = false;
    for (uint64_t seed = 1; seed <= 60 && !noticed; ++seed) {
        noticed = !World(seed, broken).run(kEvents).failure.empty();
    }
    CHECK(noticed);
}
