// SPDX-License-Identifier: Apache-2.0
// SegmentReader reads one v3 segment: of a file, or of bytes in memory, whole or torn.
// Promise: torn_is_refused: no record is handed out before the block that holds it was verified
// (checksum, chain, bounds, every record valid); after the first bad block nothing is.
// Callers: one thread. Memory: one block and the index, both bounded by limits.h.
// Failure: corrupt errors name block and byte offset; a format newer than this code, or a key that
// is not there, is operator_needed and says so.
// Layout: docs/formats/hrl.md
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "user/hrl/byte_source.h"
#include "user/hrl/layout.h"
#include "user/hrl/segment_frame.h"
#include "user/hrl/segment_writer.h"

namespace herald::hrl {

class SegmentReader {
  public:
    // Reads and verifies header and, when the file is whole, footer and index.
    // corrupt: the header itself cannot be believed. The keys of `options` are asked only here.
    static Result<SegmentReader> open(std::unique_ptr<ByteSource> source,
                                      const ReadOptions& options = {});
    SegmentReader(SegmentReader&&) noexcept;
    SegmentReader& operator=(SegmentReader&&) noexcept;
    ~SegmentReader();

    const SegmentHeader& header() const;
    // True when footer and index are there and agree with each other.
    bool whole() const;
    // The footer's word; nothing when the file is not whole.
    std::optional<uint64_t> last_position() const;
    // False when the data of writes stays sealed: Record::data_is_sealed.
    bool opens_data() const;
    // The index, one entry per block; empty when the file is not whole.
    std::span<const IndexEntryDisk> blocks() const;
    // What optional features added behind the index, by its headers; empty when the file is not
    // whole.
    std::span<const SectionHeaderDisk> sections() const;
    // The next record, or nothing at the end. In a torn file the end is after its last whole
    // block, and loss() then says what is missing. In a whole file a bad block is an error.
    // The record's data stays valid until the next call.
    Result<std::optional<Record>> next();
    // Goes on with this block of a whole file. What is before it is not looked at, so its chain is
    // believed; everything else about it is checked.
    Result<void> seek(uint32_t block);
    // From now on blocks of a whole file that `wanted` does not want are neither read nor looked
    // at; of the one after such a block the chain is believed, as after a seek.
    void only(std::function<bool(uint32_t block)> wanted);
    // Empty when nothing was lost; otherwise one sentence.
    const std::string& loss() const;

  private:
    struct State;
    explicit SegmentReader(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
};

// What a complete, verified pass over a segment found.
struct SegmentSummary {
    SegmentHeader header;
    uint64_t last_position = 0;
    uint64_t records = 0;
    uint64_t raw_bytes = 0;
    uint64_t file_bytes = 0;
    uint64_t last_time_ns = 0;
};

// Reads every record of a segment that must be whole; `visit` sees each one and may stop the
// pass by returning an error.
Result<SegmentSummary> verify_segment(
    std::unique_ptr<ByteSource> source,
    const std::function<Result<void>(const Record&)>& visit = nullptr,
    const ReadOptions& options = {});

}  // namespace herald::hrl
