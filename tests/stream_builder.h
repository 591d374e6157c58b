// SPDX-License-Identifier: Apache-2.0
// StreamBuilder makes the segments of a change stream for tests: records get their positions,
// segments their epoch and the id of the one before. It also keeps the disk as it should become.
#pragma once

#include <cstring>
#include <optional>

#include "tests/catch.hpp"
#include "user/hrl/segment_writer.h"

namespace herald::test {

class StreamBuilder {
  public:
    StreamBuilder(const Uuid& machine, const Uuid& disk, uint64_t disk_bytes, uint64_t epoch = 1)
        : disk_bytes_(disk_bytes), image_(disk_bytes) {
        header_.machine = machine;
        header_.disk = disk;
        header_.disk_bytes = disk_bytes;
        header_.epoch = epoch;
        header_.first_position = 1;
    }

    StreamBuilder& write(uint64_t offset, ByteView data) {
        hrl::Record record;
        record.kind = hrl::RecordKind::write;
        record.offset = offset;
        record.length = data.size();
        std::memcpy(image_.data() + offset, data.data(), data.size());
        return add(record, Bytes(data.begin(), data.end()));
    }
    StreamBuilder& write(uint64_t offset, uint64_t length, uint8_t value) {
        return write(offset, Bytes(length, std::byte{value}));
    }
    StreamBuilder& zeroes(uint64_t offset, uint64_t length) {
        return range(hrl::RecordKind::zeroes, offset, length);
    }
    StreamBuilder& discard(uint64_t offset, uint64_t length) {
        return range(hrl::RecordKind::discard, offset, length);
    }
    StreamBuilder& reread(uint64_t offset, uint64_t length) {
        hrl::Record record;
        record.kind = hrl::RecordKind::reread;
        record.offset = offset;
        record.length = length;
        return add(record, {});
    }
    StreamBuilder& resize(uint64_t disk_bytes) {
        hrl::Record record;
        record.kind = hrl::RecordKind::resize;
        record.length = disk_bytes;
        disk_bytes_ = disk_bytes;
        image_.resize(disk_bytes);
        return add(record, {});
    }
    StreamBuilder& activation(hrl::StreamMode mode = hrl::StreamMode::unordered) {
        return marker(hrl::RecordKind::activation,
                      hrl::encode_activation({Uuid::random(), mode, "test", ""}));
    }
    StreamBuilder& mode(hrl::StreamMode mode) {
        return marker(hrl::RecordKind::mode_change, hrl::encode_mode_change({mode, "a test"}));
    }
    // Without a cause: of the whole disk until one scan has ended, then of what changed.
    StreamBuilder& scan_begin(uint64_t scan = 1, std::optional<hrl::ScanCause> cause = {}) {
        const auto usual = scan_ended_ ? hrl::ScanCause::catch_up : hrl::ScanCause::initial;
        return marker(hrl::RecordKind::scan_begin,
                      hrl::encode_scan_begin({scan, cause.value_or(usual)}));
    }
    StreamBuilder& scan_end(uint64_t scan = 1, bool quiescent = true, uint64_t unreadable = 0) {
        scan_ended_ = scan_ended_ || unreadable == 0;
        return marker(hrl::RecordKind::scan_end,
                      hrl::encode_scan_end({scan, quiescent, unreadable}));
    }
    StreamBuilder& tag(const std::string& name,
                       hrl::Consistency consistency = hrl::Consistency::filesystem) {
        last_tag_ =
            hrl::Tag{Uuid::random(), position_ + 1000, hrl::TagKind::manual, consistency, name};
        return marker(hrl::RecordKind::tag, hrl::encode_tag(last_tag_));
    }

    // The records since the last one, as one segment.
    hrl::Segment segment() {
        header_.segment = Uuid::random();
        hrl::SegmentWriter writer(header_);
        for (Entry& entry : entries_) {
            entry.record.data = entry.data;
            auto appended = writer.append(entry.record);
            if (!appended) FAIL(appended.error().message);
        }
        entries_.clear();
        auto finished = std::move(writer).finish();
        if (!finished) FAIL(finished.error().message);
        header_.previous_segment = header_.segment;
        header_.first_position = position_ + 1;
        header_.disk_bytes = disk_bytes_;
        return std::move(*finished);
    }

    // A new session continues after what is stored.
    void new_epoch(uint64_t epoch, uint64_t head, const Uuid& head_segment) {
        entries_.clear();
        position_ = head;
        header_.epoch = epoch;
        header_.first_position = head + 1;
        header_.previous_segment = head_segment;
    }

    uint64_t position() const { return position_; }
    const hrl::Tag& last_tag() const { return last_tag_; }
    const Bytes& image() const { return image_; }
    std::vector<std::pair<hrl::Record, Bytes>> records() const {
        std::vector<std::pair<hrl::Record, Bytes>> records;
        for (const Entry& entry : entries_) records.emplace_back(entry.record, entry.data);
        return records;
    }
    const hrl::SegmentHeader& header() const { return header_; }

  private:
    struct Entry {
        hrl::Record record;
        Bytes data;
    };
    StreamBuilder& range(hrl::RecordKind kind, uint64_t offset, uint64_t length) {
        hrl::Record record;
        record.kind = kind;
        record.offset = offset;
        record.length = length;
        std::memset(image_.data() + offset, 0, length);
        return add(record, {});
    }
    StreamBuilder& marker(hrl::RecordKind kind, Bytes payload) {
        hrl::Record record;
        record.kind = kind;
        return add(record, std::move(payload));
    }
    StreamBuilder& add(hrl::Record record, Bytes data) {
        record.position = ++position_;
        record.time_ns = position_;
        entries_.push_back({record, std::move(data)});
        return *this;
    }

    hrl::SegmentHeader header_;
    uint64_t disk_bytes_;
    Bytes image_;
    uint64_t position_ = 0;
    hrl::Tag last_tag_;
    bool scan_ended_ = false;
    std::vector<Entry> entries_;
};

}  // namespace herald::test
