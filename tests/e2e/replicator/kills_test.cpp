// SPDX-License-Identifier: Apache-2.0
// dirty_or_delivered with a real disk and real processes: the replicator is killed at every named
// step, and at random instants; every point then taken restores exactly, and what is read again
// stays within the blocks that were written since the last point.
#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <iostream>
#include <random>
#include <set>
#include <thread>

#include "herald/limits.h"
#include "tests/catch.hpp"
#include "tests/e2e/replicator/protected_machine.h"
#include "user/wire/messages.h"

using namespace herald;
using namespace herald::test;
using namespace std::chrono_literals;

namespace {

constexpr uint64_t kDiskMib = 24;
constexpr uint64_t kBlocks = kDiskMib * 16;

class Killing {
  public:
    Killing() : machine(std::to_string(kDiskMib) + "M"), random(seed()) {
        memory = static_cast<std::byte*>(std::aligned_alloc(4096, HERALD_BLOCK_BYTES));
        machine.start();
        machine.wait_clean();
        machine.kill();
    }
    ~Killing() { std::free(memory); }

    static uint64_t seed() {
        const char* text = std::getenv("HERALD_SEED");
        const uint64_t value = text ? std::strtoull(text, nullptr, 10) : std::random_device{}();
        std::cout << "HERALD_SEED=" << value << std::endl;
        return value;
    }
    void write(unsigned times) {
        Fd fd = *open_file(machine.disk().device(), O_WRONLY | O_DIRECT);
        for (unsigned i = 0; i < times; ++i) {
            const uint64_t block = random() % kBlocks;
            const uint64_t at = random() % 16;
            std::fill_n(memory, 4096, std::byte(random()));
            REQUIRE(::pwrite(fd.get(), memory, 4096,
                             off_t(block * HERALD_BLOCK_BYTES + at * 4096)) == 4096);
            written.insert(block);
        }
    }
    // After a kill: a new process, a point, and the comparison. whole_disk: a compare is allowed.
    void recover(const std::string& how, bool whole_disk) {
        INFO(how);
        machine.start();
        write(3);
        machine.wait_clean();
        auto point = machine.tag(how);
        INFO((point ? "" : point.error().message));
        REQUIRE(point);
        const auto status = machine.status();
        if (!whole_disk) {
            CHECK(status["gap"] == "");
            // A block written again while it is read is read again: those of write() above.
            CHECK(status["read_bytes"].get<uint64_t>() <=
                  (written.size() + 3) * HERALD_BLOCK_BYTES);
        }
        REQUIRE(machine.sha256_of_point((*point)["id"]) == machine.sha256_of_disk());
        written.clear();
        machine.kill();
    }

    ProtectedMachine machine;
    std::mt19937_64 random;
    std::byte* memory;
    std::set<uint64_t> written;
};

bool tier_is(const char* name) {
    const char* tier = std::getenv("HERALD_TIER");
    return tier && std::string_view(tier) == name;
}

}  // namespace

TEST_CASE("killed at any named step, the next point is exact and little is read again") {
    NEEDS_PROTECTED_MACHINE();
    Killing test;
    struct Step {
        const char* name;
        unsigned times;  // how often it is reached while this test waits, at least
    };
    constexpr Step kSteps[] = {
        {"replicator.intended", 1},       {"replicator.granted", 1},
        {"replicator.recovered", 1},      {"replicator.session_saved", 1},
        {"replicator.segment_closed", 3}, {"replicator.sent_saved", 3},
        {"replicator.segment_sent", 3},   {"replicator.acked", 3},
        {"replicator.acked_saved", 3},    {"replicator.bits_cleared", 3},
        {"replicator.drained", 3},        {"replicator.taken", 3},
        {"replicator.read", 3},           {"replicator.emitted", 3},
        {"replicator.frozen", 2},         {"replicator.thawed", 2},
        {"replicator.tagged", 2},
    };
    for (const auto& [step, times] : kSteps) {
        INFO(step);
        test.write(6);
        // Not always the first time: a later one finds more under way.
        test.machine.start(fmt::format("{}:{}", step, 1 + test.random() % times));
        std::atomic<bool> died = false;
        std::thread tagger([&] {
            for (int i = 0; i < 40 && !died; ++i) {
                (void)test.machine.tag("never stored");
                std::this_thread::sleep_for(50ms);
            }
        });
        for (int i = 0; i < 100 && !test.machine.died_within(20ms); ++i) test.write(1);
        died = test.machine.died_within(10s);
        tagger.join();
        CHECK(died);
        if (!died) test.machine.kill();
        test.recover(step, false);
    }
}

TEST_CASE("killed at any step of a compare, the compare is begun again and nothing is missed") {
    NEEDS_PROTECTED_MACHINE();
    Killing test;
    for (const char* step : {"replicator.distrusted", "replicator.compared",
                             "replicator.baseline_saved", "replicator.gap_cleared"}) {
        INFO(step);
        test.write(6);
        test.machine.start(step);
        (void)test.machine.try_ask({{"op", "list"}});
        for (int i = 0; i < 100 && !test.machine.died_within(20ms); ++i) {
            (void)test.machine.try_ask(
                {{"op", "resync"}, {"disk", test.machine.disk().device()}, {"how", "digest"}});
            test.write(1);
        }
        const bool died = test.machine.died_within(10s);
        CHECK(died);
        if (!died) test.machine.kill();
        test.recover(step, true);
    }
}

TEST_CASE("killed when the whole disk was just marked, it is sent and nothing is missed") {
    NEEDS_PROTECTED_MACHINE();
    Killing test;
    test.write(6);
    test.machine.start("replicator.marked_all");
    for (int i = 0; i < 100 && !test.machine.died_within(20ms); ++i) {
        (void)test.machine.try_ask(
            {{"op", "resync"}, {"disk", test.machine.disk().device()}, {"how", "full"}});
        test.write(1);
    }
    REQUIRE(test.machine.died_within(10s));
    test.recover("replicator.marked_all", true);
}

TEST_CASE(
    "killed when it dropped a session that was superseded, it asks for another and compares") {
    NEEDS_PROTECTED_MACHINE();
    Killing test;
    test.machine.start();
    const auto disk = test.machine.status();
    test.machine.kill();
    test.write(6);
    test.machine.start("replicator.granted");
    REQUIRE(test.machine.died_within(10s));
    // Somebody else's session: the one that was granted is fenced before anybody learned of it.
    wire::SessionRequest request;
    request.session = Uuid::random();
    request.name = "other";
    request.identity = disk["identity"];
    request.disk_bytes = disk["bytes"];
    request.block_bytes = HERALD_BLOCK_BYTES;
    const std::string body = wire::encode(request);
    auto granted = test.machine.site().client("machine")->send(
        {"POST",
         "/v1/disks/" + disk["disk"].get<std::string>() + "/session",
         {{"content-type", "application/json"}},
         as_bytes(body)},
        10s);
    REQUIRE(granted);
    INFO(as_text(granted->body));
    REQUIRE(granted->status == 200);
    test.machine.start("replicator.intention_dropped");
    REQUIRE(test.machine.died_within(20s));
    test.recover("replicator.intention_dropped", true);
}

TEST_CASE("killed at random instants, the next point is exact and little is read again") {
    NEEDS_PROTECTED_MACHINE();
    Killing test;
    const int rounds = tier_is("nightly") ? 200 : tier_is("ci") ? 20 : 4;
    for (int round = 0; round < rounds; ++round) {
        test.write(6);
        test.machine.start();
        const auto until =
            std::chrono::steady_clock::now() + std::chrono::milliseconds(test.random() % 1500);
        while (std::chrono::steady_clock::now() < until) {
            test.write(1);
            std::this_thread::sleep_for(5ms);
        }
        test.machine.kill();
        test.recover(fmt::format("round {}", round), false);
    }
}
