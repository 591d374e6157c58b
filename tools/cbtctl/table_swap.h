// SPDX-License-Identifier: Apache-2.0
// Puts the driver dm_cbt under a device-mapper device that is in use, and takes it out again.
// NAME gets the table `0 N cbt NAME-herald-origin META`, and a device NAME-herald-origin what was
// its table. The kernel changes tables within one call, so whoever is killed here leaves one of
// the two in use, and the same call again ends what was begun.
// Promise: after a failure NAME has the table that it had, and is not suspended; where that could
// not be done the error says so, and what to run.
// Callers: one thread of one process. Crash points: cbtctl.helper_made, cbtctl.loaded,
// cbtctl.swapped, cbtctl.detached.
#pragma once

#include <string>

#include "tools/cbtctl/mapper.h"

namespace herald::cbtctl {

struct Swapped {
    bool changed = false;  // false: it was so already
    std::string name;
    std::string node;  // "/dev/mapper/NAME"
};

// Why the table cannot be in use twice, under NAME and under NAME-herald-origin; empty: it can.
std::string why_not_shared(const std::vector<TableLine>& table);
std::string origin_name(const std::string& name);

// meta: path of a device that `cbtctl format-meta` made, or "-".
Result<Swapped> swap_in(const std::string& name, const std::string& meta);
Result<Swapped> swap_out(herald_cbt_disk_abi device, const std::string& name);

}  // namespace herald::cbtctl
