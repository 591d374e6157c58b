// SPDX-License-Identifier: Apache-2.0
#include "user/hrl/convert.h"

#include <algorithm>

#include "user/hrl/block_summary.h"

namespace herald::hrl {

namespace {

constexpr uint64_t kSecondNs = 1'000'000'000;
// Of the largest usual size: 1 MiB in one write.
constexpr uint32_t kBlocksAtOnce = 4;

bool clears(RecordKind kind) {
    return kind == RecordKind::zeroes || kind == RecordKind::discard ||
           kind == RecordKind::secure_erase;
}

ByteView zero_bytes() {
    static const Bytes kZeroes(HERALD_RECORD_DATA_BYTES_MAX);
    return kZeroes;
}

}  // namespace

void Survey::add(const Record& record) {
    const unsigned kind = unsigned(record.kind);
    HERALD_ASSERT(kind < std::size(kinds_));
    records_ += 1;
    unchecked_ += record.data_is_unchecked;
    kinds_[kind] += 1;
    kind_bytes_[kind] += record.length;
    split_seconds_ += record.time_ns % kSecondNs != 0;
    far_times_ +=
        v2::time_ns_of(v2::time_of(record.time_ns)) / kSecondNs != record.time_ns / kSecondNs;
    if (has_range(record.kind)) disk_end_ = std::max(disk_end_, record.offset + record.length);
    if (record.kind == RecordKind::resize) disk_end_ = std::max(disk_end_, record.length);
}

std::vector<std::string> Survey::losses(JournalFormat from, JournalFormat to) const {
    std::vector<std::string> lost;
    if (from == to) return lost;
    if (to == JournalFormat::v3) {
        lost.emplace_back("the log's creator, error code, Vhd2DataWriteGuid and sizes at creation");
        if (unchecked_ != 0) {
            lost.push_back(
                fmt::format("that {} writes have no data checksum: of their data nothing but its "
                            "place is proven, and checksums are put over it",
                            unchecked_));
        }
        return lost;
    }
    const auto count = [&](RecordKind kind) { return kinds_[unsigned(kind)]; };
    const auto drop = [&](RecordKind kind, const char* what) {
        if (count(kind) != 0) lost.push_back(fmt::format("{} {}", count(kind), what));
    };
    drop(RecordKind::tag, "tags: the recovery points and their names");
    const uint64_t marks = count(RecordKind::scan_begin) + count(RecordKind::scan_end) +
                           count(RecordKind::mode_change) + count(RecordKind::activation);
    if (marks != 0) {
        lost.push_back(fmt::format(
            "{} markers of scans, modes and sessions: where the stream is fuzzy", marks));
    }
    drop(RecordKind::reread, "rereads: what could not be captured");
    drop(RecordKind::resize, "resizes: what a shrunk disk lost is not cleared");
    uint64_t cleared = 0;
    uint64_t cleared_bytes = 0;
    for (const RecordKind kind :
         {RecordKind::zeroes, RecordKind::discard, RecordKind::secure_erase}) {
        cleared += count(kind);
        cleared_bytes += kind_bytes_[unsigned(kind)];
    }
    if (cleared != 0) {
        lost.push_back(
            fmt::format("{} zeroes, discards and secure erases: written out as {} bytes "
                        "of zeroes",
                        cleared, cleared_bytes));
    }
    if (split_seconds_ != 0) {
        lost.push_back(fmt::format("the fractions of a second of {} times", split_seconds_));
    }
    if (far_times_ != 0) {
        lost.push_back(fmt::format("{} times before 2000 or after 2136", far_times_));
    }
    lost.emplace_back("the ids of machine and disk, the disk's size, the epoch and the positions");
    lost.emplace_back("checksums that find swapped bytes and swapped records");
    return lost;
}

Result<LogConverter> LogConverter::open(ByteSink& sink, const v2::LogHeader& header) {
    auto writer = v2::LogWriter::open(sink, header);
    if (!writer) return pass(writer);
    return LogConverter(std::move(*writer));
}

Result<void> LogConverter::add(const Record& record) {
    const uint32_t time = v2::time_of(record.time_ns);
    if (record.kind == RecordKind::write) {
        return writer_.append(record.offset, record.data, time, record.data_is_unchecked);
    }
    if (!clears(record.kind)) return {};
    for (uint64_t done = 0; done < record.length;) {
        const uint64_t size = std::min<uint64_t>(record.length - done, zero_bytes().size());
        auto written = writer_.append(record.offset + done, zero_bytes().first(size), time);
        if (!written) return written;
        done += size;
    }
    return {};
}

Result<void> SegmentStream::append(const Record& record) {
    auto appended = writer_.append(record);
    if (!appended || writer_.blocks() < blocks_written_ + kBlocksAtOnce) return appended;
    blocks_written_ = writer_.blocks();
    return sink_->append(writer_.take());
}

Result<Segment> SegmentStream::finish(uint64_t covered_to) {
    auto segment = std::move(writer_).finish(covered_to);
    if (!segment) return segment;
    auto written = sink_->append(std::exchange(segment->bytes, {}));
    if (!written) return pass(written);
    return segment;
}

SegmentConverter::SegmentConverter(const SegmentHeader& first, Output output, uint32_t blocks_max)
    : first_(first), header_(first), output_(std::move(output)), blocks_max_(blocks_max) {}

Result<void> SegmentConverter::begin() {
    auto sink = output_.begin();
    if (!sink) return pass(sink);
    stream_.emplace(SegmentWriter(header_), **sink);
    return {};
}

Result<void> SegmentConverter::add(const Record& record) {
    if (stream_ && stream_->writer().blocks() >= blocks_max_) {
        auto ended = end();
        if (!ended) return ended;
    }
    if (!stream_) {
        auto begun = begin();
        if (!begun) return begun;
    }
    Record numbered = record;
    numbered.position = stream_->writer().next_position();
    // The disk of the segments that follow.
    if (record.kind == RecordKind::resize) header_.disk_bytes = record.length;
    return stream_->append(numbered);
}

// Makes header_ that of the next segment.
Result<void> SegmentConverter::end() {
    auto segment = stream_->finish();
    if (!segment) return pass(segment);
    stream_.reset();
    header_.previous_segment = segment->header.segment;
    segments_ += 1;
    header_.segment = Uuid::from_name(first_.segment, fmt::format("segment {}", segments_ + 1));
    header_.first_position = segment->last_position + 1;
    return output_.end(*segment);
}

Result<uint64_t> SegmentConverter::finish() {
    if (!stream_ && segments_ == 0) {
        return fail(ErrorKind::operator_needed, "there are no records to make a segment of");
    }
    if (stream_) {
        auto ended = end();
        if (!ended) return pass(ended);
    }
    return segments_;
}

}  // namespace herald::hrl
