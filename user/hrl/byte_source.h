// SPDX-License-Identifier: Apache-2.0
// ByteSource: where a reader gets its bytes: memory, a file, or what a caller brings.
// Callers: one thread. Failure: corrupt only when the bytes are not there; anything else is trouble
// with reading, and may be tried again.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "user/base/bytes.h"
#include "user/base/result.h"

namespace herald::hrl {

class ByteSource {
  public:
    virtual ~ByteSource() = default;
    virtual uint64_t size() const = 0;
    virtual Result<void> read(uint64_t offset, ByteSpan to) = 0;  // exactly to.size() bytes
    // The same bytes in place, when they are in memory anyway; valid as long as the source.
    virtual std::optional<ByteView> borrow(uint64_t, size_t) { return std::nullopt; }
    virtual std::string name() const = 0;  // for messages
};

std::unique_ptr<ByteSource> memory_source(ByteView bytes, std::string name);  // borrows bytes
Result<std::unique_ptr<ByteSource>> file_source(const std::filesystem::path& path);

}  // namespace herald::hrl
