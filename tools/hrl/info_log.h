// SPDX-License-Identifier: Apache-2.0
// What `hrl info` says of a Hyper-V Replica Log.
#pragma once

#include "tools/hrl/verbs.h"
#include "user/hrl/v2/log_reader.h"

namespace herald::hrl_tool {

// Returns the exit status.
int info_of_log(const InfoOptions& options, const hrl::v2::LogReader& log, uint64_t file_bytes);

}  // namespace herald::hrl_tool
