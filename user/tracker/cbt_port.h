// SPDX-License-Identifier: Apache-2.0
// CbtPort: one open file of /dev/herald-cbt, as far as a reader uses it, so that a producer in user
// space on the same ABI can stand in for the driver in tests, benchmarks and the simulator.
// Promise: what the structures of herald/abi/cbt.h mean is said there and the same for all ports.
// Callers: one thread. Owns: the file and its mappings; closing it gives up the disk it owns.
#pragma once

#include <chrono>
#include <cstdint>

#include "user/base/bytes.h"
#include "user/base/result.h"

namespace herald::tracker {

class CbtPort {
  public:
    virtual ~CbtPort() = default;
    // As ioctl(2): 0 or a negative errno.
    virtual int call(unsigned long request, void* argument) = 0;
    // As mmap(2), for reading: an area of the disk that this file owns, while the port lives.
    // Others write to it at any time.
    virtual Result<ByteView> map(uint64_t offset, uint64_t bytes) = 0;
    // As poll(2): true when there is something to look at.
    virtual bool wait(std::chrono::milliseconds timeout) = 0;
};

}  // namespace herald::tracker
