// SPDX-License-Identifier: Apache-2.0
#include "user/agent/log_gate.h"

#include <spdlog/logger.h>
#include <spdlog/sinks/ostream_sink.h>

#include <sstream>
#include <thread>

#include "herald/limits.h"
#include "tests/catch.hpp"

using namespace herald::agent;

namespace {

constexpr std::chrono::hours kLong{1};

struct Fixture {
    std::ostringstream out;
    std::shared_ptr<LogGate> gate =
        std::make_shared<LogGate>(std::make_shared<spdlog::sinks::ostream_sink_mt>(out, true));
    spdlog::logger log{"test", gate};
    Fixture() { log.set_pattern("%v"); }
    size_t lines() const {
        const std::string text = out.str();
        return size_t(std::count(text.begin(), text.end(), '\n'));
    }
};

}  // namespace

TEST_CASE("a closed log gate holds messages and lets them go in order") {
    Fixture f;
    f.log.info("before");
    {
        LogGate::Closed closed(*f.gate, kLong);
        f.log.info("one {}", 1);
        f.log.flush();
        {
            LogGate::Closed again(*f.gate, kLong);
            f.log.warn("two");
        }
        f.log.info("three");
        CHECK(f.out.str() == "before\n");
    }
    CHECK(f.out.str() == "before\none 1\ntwo\nthree\n");
    f.log.info("after");
    CHECK(f.out.str() == "before\none 1\ntwo\nthree\nafter\n");
}

TEST_CASE("whoever hangs with the gate closed does not mute the log for longer than they said") {
    using namespace std::chrono_literals;
    Fixture f;
    LogGate::Closed hangs(*f.gate, 20ms);
    f.log.info("held");
    CHECK(f.out.str().empty());
    std::this_thread::sleep_for(30ms);
    {
        // Another's freeze meanwhile holds as ever.
        LogGate::Closed closed(*f.gate, kLong);
        f.log.info("two");
        CHECK(f.out.str() == "held\n");
    }
    f.log.info("three");
    CHECK(f.out.str() == "held\ntwo\nthree\n");
}

TEST_CASE("a log gate that is opened for good holds nothing any more") {
    Fixture f;
    LogGate::Closed hangs(*f.gate, kLong);
    f.log.info("held");
    f.gate->open_for_good();
    f.log.info("the end");
    CHECK(f.out.str() == "held\nthe end\n");
}

TEST_CASE("a log gate drops what is over its bound and says how many") {
    Fixture f;
    {
        LogGate::Closed closed(*f.gate, kLong);
        for (unsigned i = 0; i < HERALD_LOG_GATE_MESSAGES_MAX + 7; ++i) f.log.info("x");
    }
    CHECK(f.lines() == HERALD_LOG_GATE_MESSAGES_MAX + 1);
    CHECK(f.out.str().find("7 log messages were dropped") != std::string::npos);
}

TEST_CASE("threads may log while the gate opens and closes, and nothing is lost") {
    Fixture f;
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&] {
            for (int i = 0; i < 200; ++i) f.log.info("x");
        });
    }
    for (int i = 0; i < 50; ++i) LogGate::Closed closed(*f.gate, kLong);
    for (auto& thread : threads) thread.join();
    CHECK(f.lines() == 800);
}
