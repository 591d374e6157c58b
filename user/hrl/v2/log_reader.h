// SPDX-License-Identifier: Apache-2.0
// LogReader reads one Hyper-V Replica Log as records: every entry a write, oldest first.
// Promise: torn_is_refused, as far as the format's checksums reach: no record is handed out before
// its metadata block was checked, and its data where it has a checksum; after the first bad block
// nothing is. Of a log that was not closed or is broken, what is proven from its front is handed
// out, and loss() says what is not.
// Records are numbered 1, 2, 3, ... in the log; an entry of more than 1 MiB becomes several.
// Callers: one thread. Memory: one metadata block, 1 MiB, and 8 bytes for each block of the log.
// Failure: corrupt names block and byte offset; operator_needed for what this code does not know,
// and for entries whose order nothing proves (name it with `assumed`).
// Layout: docs/formats/mshrl.md
#pragma once

#include <memory>
#include <optional>

#include "user/hrl/record.h"
#include "user/hrl/segment_reader.h"
#include "user/hrl/v2/log_header.h"
#include "user/hrl/v2/metadata.h"

namespace herald::hrl::v2 {

// True when the source begins as a replica log does.
Result<bool> is_log(ByteSource& source);

class LogReader {
  public:
    // `assumed`: the order of entries where nothing in the log proves one.
    static Result<LogReader> open(std::unique_ptr<ByteSource> source,
                                  std::optional<EntryOrder> assumed = std::nullopt);
    LogReader(LogReader&&) noexcept;
    LogReader& operator=(LogReader&&) noexcept;
    ~LogReader();

    const LogHeader& header() const;
    // True when the log was closed and its chain of metadata blocks is there.
    bool whole() const;
    // What is proven: the whole log, or its front.
    uint64_t block_count() const;
    uint64_t entry_count() const;
    uint64_t end() const;
    // The order in which entries lie, as far as the log proves it.
    std::optional<EntryOrder> entry_order() const;
    // Bytes behind the end of a whole log; they belong to nothing.
    uint64_t trailing_bytes() const;
    // Entries handed out so far, and those among them whose data has no checksum.
    uint64_t entries_read() const;
    uint64_t entries_unchecked() const;

    // The next record, or nothing at the end. Its data stays valid until the next call.
    Result<std::optional<Record>> next();
    // Empty when nothing was lost; otherwise one sentence.
    const std::string& loss() const;

  private:
    struct State;
    explicit LogReader(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
};

}  // namespace herald::hrl::v2
