// SPDX-License-Identifier: Apache-2.0
#include "user/replicator/segment_builder.h"

namespace herald::replicator {

SegmentBuilder::SegmentBuilder(BuilderOptions options, std::function<Uuid()> make_id)
    : options_(std::move(options)), make_id_(std::move(make_id)) {}

void SegmentBuilder::begin(uint64_t epoch, uint64_t head, const Uuid& head_segment) {
    epoch_ = epoch;
    last_position_ = head;
    previous_segment_ = head_segment;
    open_.reset();
    closed_.clear();
    closed_bytes_ = 0;
}

Result<uint64_t> SegmentBuilder::append(hrl::Record record, uint64_t time_ns) {
    // A record that would carry a full segment past what a server takes goes into the next one.
    if (open_ && (open_->raw_bytes() + record.data.size() >
                      options_.segment_bytes + HERALD_RECORD_DATA_BYTES_MAX ||
                  open_->records() + 1 >= HERALD_SEGMENT_RECORDS_MAX ||
                  markers_ >= HERALD_SEGMENT_MARKERS_MAX)) {
        auto closed = flush();
        if (!closed) return pass(closed);
    }
    if (!open_) {
        hrl::SegmentHeader header;
        header.machine = options_.machine;
        header.disk = options_.disk;
        header.segment = make_id_();
        header.previous_segment = previous_segment_;
        header.epoch = epoch_;
        header.first_position = last_position_ + 1;
        header.disk_bytes = options_.disk_bytes;
        header.created_ns = time_ns;
        open_.emplace(header, options_.segment_bytes);
        opened_ns_ = time_ns;
        markers_ = 0;
        previous_segment_ = header.segment;
    }
    record.position = last_position_ + 1;
    record.time_ns = time_ns;
    auto appended = open_->append(record);
    if (!appended) return pass(appended);
    const bool is_data =
        record.kind == hrl::RecordKind::write || record.kind == hrl::RecordKind::zeroes ||
        record.kind == hrl::RecordKind::discard || record.kind == hrl::RecordKind::secure_erase;
    if (!is_data) ++markers_;
    last_position_ = record.position;
    if (open_->raw_bytes() >= options_.segment_bytes) {
        auto closed = flush();
        if (!closed) return pass(closed);
    }
    return record.position;
}

Result<void> SegmentBuilder::flush() {
    if (!open_) return {};
    auto segment = std::move(*open_).finish();
    open_.reset();
    if (!segment) return pass(segment, "close a segment");
    closed_.push_back(std::make_shared<const hrl::Segment>(std::move(*segment)));
    closed_bytes_ += closed_.back()->bytes.size();
    return {};
}

Result<void> SegmentBuilder::close_aged(uint64_t time_ns) {
    const auto at = close_at_ns();
    return at && time_ns >= *at ? flush() : Result<void>{};
}

std::vector<SegmentPtr> SegmentBuilder::take_closed(size_t segments_max) {
    std::vector<SegmentPtr> taken;
    while (!closed_.empty() && taken.size() < segments_max) {
        closed_bytes_ -= closed_.front()->bytes.size();
        taken.push_back(std::move(closed_.front()));
        closed_.pop_front();
    }
    return taken;
}

std::optional<uint64_t> SegmentBuilder::close_at_ns() const {
    if (!open_) return std::nullopt;
    return opened_ns_ + options_.segment_age_ms * 1'000'000;
}

}  // namespace herald::replicator
