// SPDX-License-Identifier: Apache-2.0
// Runs a command as a user does, for tests that look at what it says.
#pragma once

#include <sys/wait.h>

#include <cstdio>
#include <string>

#include "tests/catch.hpp"

namespace herald::test {

struct Run {
    int status = -1;
    std::string output;  // what `command` leaves on its standard output

    bool has(const std::string& text) const { return output.find(text) != std::string::npos; }
};

inline Run run_shell(const std::string& command) {
    Run run;
    FILE* pipe = ::popen(command.c_str(), "r");
    REQUIRE(pipe);
    char buffer[4096];
    for (size_t n; (n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) {
        run.output.append(buffer, n);
    }
    const int status = ::pclose(pipe);
    REQUIRE(WIFEXITED(status));
    run.status = WEXITSTATUS(status);
    return run;
}

}  // namespace herald::test
