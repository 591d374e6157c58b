// SPDX-License-Identifier: Apache-2.0
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "tests/catch.hpp"
#include "tests/sim/run_seeds.h"

namespace herald::sim {

namespace {

constexpr uint64_t kSeedDefault = 1;
// A sanitizer takes ten times as long for each, and looks for other things.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr uint64_t kSeedsOfCheck = 500;
#else
constexpr uint64_t kSeedsOfCheck = 5000;
#endif

const World* running = nullptr;
uint64_t running_seed = 0;

void report(const char* what) {
    std::printf("HERALD_SEED=%llu, step %llu: %s\n%s", (unsigned long long)running_seed,
                (unsigned long long)running->trace().step, what, running->trace().text().c_str());
    std::printf("again: HERALD_SEED=%llu\n", (unsigned long long)running_seed);
    std::fflush(stdout);
}

// A broken invariant of a core aborts; the history before it is worth more than a core file.
void on_abort(int) {
    if (running) report("an assertion of a core failed");
    ::_exit(1);
}

// A quarter of a million histories each night, other ones by its seed; fewer of the ordered ones,
// which take longer each.
constexpr uint64_t kNightlyFactor = 50;
constexpr uint64_t kNightlyFactorOrdered = 20;

uint64_t number_of_seeds(bool ordered) {
    const char* tier = std::getenv("HERALD_TIER");
    const std::string name = tier ? tier : "";
    return name == "nightly" ? kSeedsOfCheck * (ordered ? kNightlyFactorOrdered : kNightlyFactor)
           : name == "ci"    ? kSeedsOfCheck * 5
                             : kSeedsOfCheck;
}

}  // namespace

std::optional<SeedRange> range_of_part(SeedRange all, const std::string& part) {
    unsigned long long number = 0, parts = 0;
    int end = 0;
    if (std::sscanf(part.c_str(), "%6llu/%6llu%n", &number, &parts, &end) != 2 ||
        size_t(end) != part.size() || number == 0 || number > parts) {
        return std::nullopt;
    }
    const uint64_t begin = all.count * (number - 1) / parts;
    return SeedRange{all.first + begin, all.count * number / parts - begin};
}

Figures run_seeds(bool ordered) {
    spdlog::set_level(spdlog::level::off);
    std::signal(SIGABRT, on_abort);
    const char* given = std::getenv("HERALD_SEED");
    const SeedRange all{given ? std::strtoull(given, nullptr, 10) : kSeedDefault,
                        number_of_seeds(ordered)};
    const char* part = std::getenv("HERALD_PART");
    const auto range = range_of_part(all, part ? part : "1/1");
    if (!range) FAIL("HERALD_PART wants I/N with I from 1 to N, not '" << part << "'");
    const auto [first, count] = *range;
    std::printf("seeds %llu to %llu (HERALD_SEED)\n", (unsigned long long)first,
                (unsigned long long)(first + count - 1));
    Figures sum;
    for (uint64_t seed = first; seed < first + count; ++seed) {
        World world(seed, ordered);
        running = &world;
        running_seed = seed;
        try {
            world.run();
        } catch (const Violation& violation) {
            report(violation.what.c_str());
            FAIL(violation.what << " (HERALD_SEED=" << seed << ")");
        }
        sum += world.figures();
        running = nullptr;
    }
    std::printf(
        "%llu histories: %llu commits, %llu points, %llu replicator and %llu server crashes, "
        "%llu clones (%llu in one session), %llu reverts, %llu reboots, %llu gaps, %llu catalog "
        "restores, "
        "%llu damaged uploads, at most %llu steps to converge\n",
        (unsigned long long)count, (unsigned long long)sum.commits, (unsigned long long)sum.points,
        (unsigned long long)sum.agent_crashes, (unsigned long long)sum.server_crashes,
        (unsigned long long)sum.clones, (unsigned long long)sum.twins,
        (unsigned long long)sum.reverts, (unsigned long long)sum.reboots,
        (unsigned long long)sum.gaps, (unsigned long long)sum.catalog_restores,
        (unsigned long long)sum.damaged, (unsigned long long)sum.calm_steps_max);
    // A simulator in which nothing goes wrong proves nothing.
    CHECK(sum.agent_crashes > 0);
    CHECK(sum.server_crashes > 0);
    CHECK(sum.points > 0);
    return sum;
}

}  // namespace herald::sim
