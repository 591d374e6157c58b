// SPDX-License-Identifier: Apache-2.0
// Converting journals between v2 and v3, record by record.
// Survey looks at every record first and says what the other format cannot carry, so that it is
// named before it is dropped. LogConverter and SegmentConverter then write.
// Promise: applying what was written onto an image gives what applying the records would have
// given, except for what the survey named.
// Callers: one thread. Memory: one metadata block; some blocks of a segment, and its index.
// Failure: that of the writers. What was written before stays with its owner.
#pragma once

#include <functional>

#include "user/hrl/journal.h"
#include "user/hrl/segment_writer.h"
#include "user/hrl/v2/log_writer.h"

namespace herald::hrl {

class Survey {
  public:
    void add(const Record& record);
    // What a conversion from one format to the other loses, one sentence each.
    std::vector<std::string> losses(JournalFormat from, JournalFormat to) const;
    uint64_t records() const { return records_; }
    // The first byte behind every range: the least the disk has.
    uint64_t disk_end() const { return disk_end_; }

  private:
    uint64_t records_ = 0;
    uint64_t unchecked_ = 0;        // their data has no checksum
    uint64_t kinds_[16] = {};       // by RecordKind
    uint64_t kind_bytes_[16] = {};  // of their ranges
    uint64_t split_seconds_ = 0;
    uint64_t far_times_ = 0;  // before 2000 or after 2136
    uint64_t disk_end_ = 0;
};

class LogConverter {
  public:
    static Result<LogConverter> open(ByteSink& sink, const v2::LogHeader& header);
    // Writes stay writes; zeroes, discards and secure erases become zeroes that are written out;
    // every other record is dropped.
    Result<void> add(const Record& record);
    Result<v2::LogHeader> finish() { return writer_.finish(); }

  private:
    explicit LogConverter(v2::LogWriter writer) : writer_(std::move(writer)) {}
    v2::LogWriter writer_;
};

// Writes what `writer` has done to `sink` as it comes, some blocks at a time.
class SegmentStream {
  public:
    SegmentStream(SegmentWriter writer, ByteSink& sink)
        : writer_(std::move(writer)), sink_(&sink) {}
    Result<void> append(const Record& record);
    // As SegmentWriter::finish(); the bytes of the segment are in the sink.
    Result<Segment> finish(uint64_t covered_to = 0);
    const SegmentWriter& writer() const { return writer_; }

  private:
    SegmentWriter writer_;
    ByteSink* sink_;
    uint32_t blocks_written_ = 0;
};

class SegmentConverter {
  public:
    struct Output {
        // Where the next segment goes; the sink is there until end().
        std::function<Result<ByteSink*>()> begin;
        // The segment is in the sink, complete.
        std::function<Result<void>(const Segment&)> end;
    };
    // `first` is the header of the first segment. There is one, whatever its size, unless its
    // index is full with `blocks_max`: those after it get ids that follow from its id. Records are
    // numbered anew from its first_position.
    SegmentConverter(const SegmentHeader& first, Output output,
                     uint32_t blocks_max = HERALD_HRL_BLOCKS_MAX - 1);
    Result<void> add(const Record& record);
    // Ends the last segment. Returns how many there were; at least one record must have come.
    Result<uint64_t> finish();

  private:
    Result<void> begin();
    Result<void> end();

    SegmentHeader first_;
    SegmentHeader header_;
    Output output_;
    uint32_t blocks_max_;
    std::optional<SegmentStream> stream_;  // of the open segment
    uint64_t segments_ = 0;
};

}  // namespace herald::hrl
