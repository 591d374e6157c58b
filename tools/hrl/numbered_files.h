// SPDX-License-Identifier: Apache-2.0
// NumberedFiles: new files out.hrl, out.2.hrl, out.3.hrl, ..., as many as come.
// Promise: none gets its name before all of it is durable, and, where there are several, not
// before it is known that none of the names is taken. What a later failure leaves are the files
// before it, each complete. Callers: one thread.
#pragma once

#include <optional>

#include "tools/hrl/new_file.h"

namespace herald::hrl_tool {

class NumberedFiles {
  public:
    explicit NumberedFiles(std::filesystem::path first) : first_(std::move(first)) {}
    // Where the next one goes; the sink is there until the next begin().
    Result<hrl::ByteSink*> begin();
    // It is complete; it waits for its name, because another may be needed.
    Result<void> end();
    // There are no more.
    Result<void> commit();
    // Of the one that was begun last.
    std::filesystem::path name() const { return numbered(count_); }

  private:
    std::filesystem::path numbered(uint64_t number) const;
    Result<void> find_taken() const;

    std::filesystem::path first_;
    uint64_t count_ = 0;
    std::optional<NewFile> file_;
};

}  // namespace herald::hrl_tool
