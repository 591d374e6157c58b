// SPDX-License-Identifier: Apache-2.0
// IoEngine: asynchronous reads and writes of one open file or block device.
// Promise: every submitted request completes exactly once; three engines (io_uring, libaio,
// pread) behave alike and pass the same tests. O_DIRECT alignment is the caller's business.
// Callers: one thread at a time. Owns: its ring or thread, not the descriptor.
// Failure: a request's own error is in its completion; submit() and wait() fail only when the
// engine itself is broken.
#pragma once

#include <chrono>
#include <memory>
#include <string_view>

#include "user/base/bytes.h"
#include "user/base/result.h"

namespace herald {

enum class IoOp : uint8_t { read, write, sync };

struct IoRequest {
    IoOp op = IoOp::read;
    uint64_t offset = 0;  // bytes
    ByteSpan buffer;      // stays valid until the completion; empty for sync
    uint64_t cookie = 0;  // handed back in the completion
};

struct IoCompletion {
    uint64_t cookie = 0;
    int32_t result = 0;  // bytes transferred, or -errno
};

enum class IoEngineKind { automatic, io_uring, libaio, pread };

class IoEngine {
  public:
    using Clock = std::chrono::steady_clock;
    virtual ~IoEngine() = default;
    // Takes as many requests from the front as there is room for and returns how many.
    virtual Result<size_t> submit(std::span<const IoRequest> requests) = 0;
    // Waits until at least `at_least` completions are there (0: does not wait); fills up to
    // to.size(). `at_least` is never more than what is in flight.
    Result<size_t> wait(std::span<IoCompletion> to, size_t at_least) {
        return wait_until(to, at_least, Clock::time_point::max());
    }
    // The same, and fewer than `at_least` when that is not to be had by then.
    virtual Result<size_t> wait_until(std::span<IoCompletion> to, size_t at_least,
                                      Clock::time_point until) = 0;
    virtual size_t in_flight() const = 0;
    virtual size_t depth() const = 0;
    virtual IoEngineKind kind() const = 0;
};

// `automatic` tries io_uring, then libaio, then pread, each with a real probe.
Result<std::unique_ptr<IoEngine>> make_io_engine(IoEngineKind kind, int fd, size_t depth);

const char* to_string(IoEngineKind kind);
Result<IoEngineKind> parse_io_engine_kind(std::string_view text);

}  // namespace herald
