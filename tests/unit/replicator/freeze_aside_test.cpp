// SPDX-License-Identifier: Apache-2.0
#include "user/replicator/freeze_aside.h"

#include <pthread.h>
#include <sys/socket.h>

#include "tests/catch.hpp"
#include "tests/temp_dir.h"
#include "user/agent/unix_socket.h"

using namespace herald;
using namespace herald::replicator;
using namespace std::chrono_literals;

namespace {
using Clock = FreezeAside::Clock;

// No thread gets a stack while one of these lives.
struct NoThreads {
    NoThreads() {
        pthread_getattr_default_np(&before);
        pthread_attr_t huge;
        pthread_getattr_default_np(&huge);
        pthread_attr_setstacksize(&huge, size_t{1} << 50);
        pthread_setattr_default_np(&huge);
        pthread_attr_destroy(&huge);
    }
    ~NoThreads() {
        pthread_setattr_default_np(&before);
        pthread_attr_destroy(&before);
    }
    pthread_attr_t before;
};
}  // namespace

TEST_CASE("a freeze that takes longer than its caller waits is heard of later") {
    test::TempDir dir;
    // Nobody accepts: the freezer waits a second for the guardian's answer, and freezes nothing.
    auto listener = agent::listen_unix(dir.path() / "g.sock", SOCK_SEQPACKET, 1);
    REQUIRE(listener);
    const agent::Freezer freezer(dir.path() / "g.sock");
    agent::MountedFilesystem filesystem;
    filesystem.mount_point = dir.path();
    FreezeAside aside(freezer, {filesystem}, 5s);
    REQUIRE_FALSE(aside.frozen(Clock::now() + 50ms));
    const auto taken = aside.frozen(Clock::now() + 60s);
    REQUIRE(taken);
    REQUIRE_FALSE(*taken);
    // Nor is there anything to thaw.
    REQUIRE_FALSE(aside.thaw(Clock::now() + 50ms));
}

TEST_CASE("what was frozen is thawed when asked for, when left to the guardian, and at the end") {
    const agent::Freezer freezer("/nowhere/g.sock");  // not needed: nothing is to be frozen
    FreezeAside aside(freezer, {}, 5s);
    const auto taken = aside.frozen(Clock::now() + 60s);
    REQUIRE(taken);
    REQUIRE(*taken);
    SECTION("asked for") {
        const auto thawed = aside.thaw(Clock::now() + 60s);
        REQUIRE(thawed);
        REQUIRE_FALSE(thawed->expired);
    }
    SECTION("left to the guardian") {
        const auto began = Clock::now();
        aside.leave_to_guardian(began + 60s);
        REQUIRE(Clock::now() - began < 50s);
    }
    SECTION("at the end") {}
}

TEST_CASE("without a thread for it nothing is frozen, and the point hears of it") {
    const agent::Freezer freezer("/nowhere/g.sock");
    const NoThreads none;
    FreezeAside aside(freezer, {}, 5s);
    const auto taken = aside.frozen(Clock::now());
    REQUIRE(taken);
    REQUIRE_FALSE(*taken);
    REQUIRE(taken->error().kind == ErrorKind::retry);
}
