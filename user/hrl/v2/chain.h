// SPDX-License-Identifier: Apache-2.0
// Chains of files that name the one before them: replica logs by PreviousUniqueId, segments too.
// Promise: every file of the set is in the order or named as a duplicate; every gap, fork, loop
// and duplicate is named. A nil id before means that a file begins a chain.
// Callers: any thread. Sans I/O.
#pragma once

#include <string>
#include <vector>

#include "user/base/uuid.h"

namespace herald::hrl::v2 {

struct Link {
    std::string name;  // of the file, for messages
    Uuid id;
    Uuid previous;
    uint64_t created_ns = 0;  // orders what the ids do not
};

struct Chain {
    std::vector<size_t> order;          // indices into the links, each before those that follow it
    std::vector<std::string> problems;  // gaps, forks, loops, duplicates: one sentence each
};

Chain follow_links(const std::vector<Link>& links);

}  // namespace herald::hrl::v2
