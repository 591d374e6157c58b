// SPDX-License-Identifier: Apache-2.0
#include "user/base/crash_point.h"

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "tests/catch.hpp"

using namespace herald;

namespace {

// How a child ends that arms `armed` and then reaches "a" and "b" `rounds` times.
int status_of_child(const char* armed, int rounds) {
    const pid_t child = ::fork();
    if (child == 0) {
        arm_crash_point(armed);
        for (int i = 0; i < rounds; ++i) {
            crash_point("a");
            crash_point("b");
        }
        ::_exit(0);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    return status;
}

bool was_killed(int status) { return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL; }

}  // namespace

TEST_CASE("a crash point kills at the n-th time it is reached and not before") {
    CHECK(was_killed(status_of_child("b", 1)));
    CHECK(was_killed(status_of_child("b:3", 3)));
    CHECK(status_of_child("b:3", 2) == 0);
    CHECK(status_of_child("c", 5) == 0);
    CHECK(status_of_child("", 5) == 0);
}
