// SPDX-License-Identifier: Apache-2.0
// The three engines behind make_io_engine(). Each maker probes: it fails (operator_needed, with
// the cause) where the kernel, a sandbox or a limit refuses that engine.
// Callers: io_engine.cpp and its tests only.
#pragma once

#include "user/base/io_engine.h"

namespace herald {

Result<std::unique_ptr<IoEngine>> make_io_uring_engine(int fd, size_t depth);
Result<std::unique_ptr<IoEngine>> make_libaio_engine(int fd, size_t depth);
Result<std::unique_ptr<IoEngine>> make_pread_engine(int fd, size_t depth);

// One request done with pread, pwrite or fdatasync: bytes transferred or -errno.
int32_t do_io_now(int fd, const IoRequest& request);

}  // namespace herald
