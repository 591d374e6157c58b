// SPDX-License-Identifier: Apache-2.0
// Runs another program to its end: arguments as they are, without a shell.
// Promise: its standard input is `input`; what it printed is whole. It ends by itself.
// Callers: one thread. Failure: operator_needed, with the program's own words.
#pragma once

#include <string>
#include <vector>

#include "user/base/result.h"

namespace herald::cbtctl {

struct Ended {
    int status = -1;  // exit status; 127: there is no such program; 128 + n: signal n
    std::string out;
    std::string err;
};

Result<Ended> run_program(const std::vector<std::string>& words, const std::string& input = {});

}  // namespace herald::cbtctl
