// SPDX-License-Identifier: Apache-2.0
// ByteSink: where a writer puts the bytes of a file that it does not keep in memory.
// Promise: append() puts bytes behind those before; replace() changes bytes that are there; after
// sync() all of them are durable.
// Callers: one thread. Failure: as files fail; what was appended before stays.
#pragma once

#include <filesystem>
#include <memory>

#include "user/base/bytes.h"
#include "user/base/result.h"

namespace herald::hrl {

class ByteSink {
  public:
    virtual ~ByteSink() = default;
    virtual Result<void> append(ByteView bytes) = 0;
    virtual Result<void> replace(uint64_t offset, ByteView bytes) = 0;
    virtual Result<void> sync() = 0;
    virtual uint64_t size() const = 0;
};

std::unique_ptr<ByteSink> memory_sink(Bytes& to);  // borrows `to`, which must be empty
// A new file: a path that exists is refused.
Result<std::unique_ptr<ByteSink>> file_sink(const std::filesystem::path& path, mode_t mode = 0644);

}  // namespace herald::hrl
