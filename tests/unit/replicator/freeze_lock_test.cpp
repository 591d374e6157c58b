// SPDX-License-Identifier: Apache-2.0
#include "user/replicator/freeze_lock.h"

#include <atomic>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "tests/catch.hpp"
#include "user/replicator/disk_wait.h"

using namespace herald::replicator;
using namespace std::chrono_literals;

namespace {
using Clock = FreezeLock::Clock;
constexpr auto kNever = Clock::time_point::max();
}  // namespace

TEST_CASE("nothing is written during a freeze, and no freeze begins during a write") {
    FreezeLock lock;
    std::atomic<int> inside{0};
    std::atomic<bool> overlapped{false};
    const auto enter = [&] {
        if (inside.fetch_add(1) != 0) overlapped = true;
        std::this_thread::yield();
        inside.fetch_sub(1);
    };
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
            for (int i = 0; i < 500; ++i) {
                if (t % 2 == 0) {
                    const FreezeLock::Freeze freeze(lock, 1h, kNever);
                    enter();
                } else {
                    const std::lock_guard write(lock);
                    enter();
                }
            }
        });
    }
    for (auto& thread : threads) thread.join();
    REQUIRE_FALSE(overlapped);
}

TEST_CASE("a freeze that hangs is waited for as long as it may last") {
    FreezeLock lock;
    std::optional<FreezeLock::Freeze> hangs;
    hangs.emplace(lock, 100ms, kNever);
    const auto began = Clock::now();
    { const std::lock_guard write(lock); }
    REQUIRE(Clock::now() - began >= 95ms);
    SECTION("then writers and freezes go on as if it had ended") {
        { const FreezeLock::Freeze next(lock, 1h, kNever); }
        const std::lock_guard write(lock);
    }
    SECTION("its end takes nothing from the freeze that came after it") {
        const FreezeLock::Freeze next(lock, 50ms, kNever);
        const auto next_began = Clock::now();
        hangs.reset();
        const std::lock_guard write(lock);
        REQUIRE(Clock::now() - next_began >= 45ms);
    }
}

TEST_CASE("a write that hangs has a freeze refused, not waited for") {
    FreezeLock lock;
    lock.lock();
    {
        const FreezeLock::Freeze refused(lock, 1h, Clock::now() + 50ms);
        REQUIRE_FALSE(refused.began());
    }
    lock.unlock();
    const FreezeLock::Freeze freeze(lock, 1h, Clock::now() + 1h);
    REQUIRE(freeze.began());
    const FreezeLock::Freeze second(lock, 1h, Clock::now() + 50ms);
    REQUIRE_FALSE(second.began());
}

TEST_CASE("a disk is silent once it takes longer than one that works would") {
    DiskWait wait;
    REQUIRE_FALSE(wait.silent());
    {
        const DiskWait::Mark mark(wait, 50ms);
        REQUIRE_FALSE(wait.silent());
        std::this_thread::sleep_for(60ms);
        REQUIRE(wait.silent());
        REQUIRE(wait.silent()->since == 0s);
    }
    REQUIRE_FALSE(wait.silent());
    const DiskWait::Mark writes_back(wait, kWriteBackMax);
    REQUIRE_FALSE(wait.silent());
    REQUIRE(wait.call()->patience > kDiskAnswerMax);
}
