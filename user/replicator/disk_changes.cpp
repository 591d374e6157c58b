// SPDX-License-Identifier: Apache-2.0
// What DiskStream makes of the changes of a tracker that sees their order.
#include <algorithm>

#include "user/replicator/disk_stream.h"

namespace herald::replicator {

using tracker::OrderedChange;

namespace {

// One batch, after which the tracker gets its room back.
constexpr size_t kChangesPerBatch = 4096;
// Requested and not seen yet: more are refused.
constexpr size_t kTagsMax = 64;

}  // namespace

uint64_t DiskStream::stamp(uint64_t now_ns) const {
    const uint64_t complete = ordered_ ? ordered_->complete_ns() : 0;
    return complete != 0 ? complete : now_ns;
}

void DiskStream::note_all_read() {
    if (!ordered_ || scanner_.in_flight() > 0 || !unreadable_.empty()) return;
    if (tracker_.map().todo_blocks() == 0) ordered_->all_read(builder_.last_position());
}

Result<void> DiskStream::append(hrl::Record record, uint64_t time_ns) {
    auto appended = builder_.append(record, time_ns);
    if (!appended) return pass(appended);
    return {};
}

// A range of a change: what is in flight of a scan gives way to it.
Result<void> DiskStream::append_range(hrl::RecordKind kind, uint64_t offset, uint64_t length,
                                      ByteView data, uint64_t time_ns) {
    hrl::Record record;
    record.kind = kind;
    record.offset = offset;
    record.length = length;
    record.data = data;
    scanner_.observe(record);
    return append(record, time_ns);
}

Result<void> DiskStream::append_reread(uint64_t offset, uint64_t length, uint64_t time_ns) {
    needs_scan_ = true;
    scan_covers_ = false;
    hrl::Record record;
    record.kind = hrl::RecordKind::reread;
    record.offset = offset;
    record.length = length;
    return append(record, time_ns);
}

Result<void> DiskStream::append_mode(hrl::StreamMode mode, const OrderedChange& change) {
    needs_scan_ = true;
    scan_covers_ = false;
    const Bytes payload = hrl::encode_mode_change({mode, change.cause});
    hrl::Record record;
    record.kind = hrl::RecordKind::mode_change;
    record.data = payload;
    // The first of a session may come before any that has a time.
    return append(record, change.time_ns != 0 ? change.time_ns : began_ns_);
}

// One that nobody here asked for comes from another program on this machine.
Result<void> DiskStream::append_tag(const OrderedChange& change) {
    hrl::Tag tag;
    tag.consistency = hrl::Consistency::crash;
    const auto requested = tags_requested_.find(change.id);
    if (requested != tags_requested_.end()) tag = requested->second;
    tag.id = change.id;
    tag.time_ns = change.time_ns;
    const Bytes payload = hrl::encode_tag(tag);
    hrl::Record record;
    record.kind = hrl::RecordKind::tag;
    record.data = payload;
    auto appended = append(record, change.time_ns);
    if (!appended) return appended;
    if (requested != tags_requested_.end()) {
        TagPlace place{builder_.last_position(), change.time_ns, {}};
        if (scan_open_) {
            place.refusal = "a scan is under way";
        } else if (needs_scan_) {
            place.refusal = "the disk was not tracked in order at the tag, or was not read since";
        }
        tags_placed_[change.id] = std::move(place);
        tags_requested_.erase(requested);
    }
    at_step_("replicator.tagged");
    return builder_.flush();
}

Result<void> DiskStream::append_change(const OrderedChange& change) {
    using Kind = OrderedChange::Kind;
    // The disk may have shrunk since.
    const uint64_t offset = std::min(change.offset, options_.disk_bytes);
    const uint64_t end = offset + std::min(change.length, options_.disk_bytes - offset);
    const auto range = [&](hrl::RecordKind kind) {
        return end > offset ? append_range(kind, offset, end - offset, {}, change.time_ns)
                            : Result<void>();
    };
    switch (change.kind) {
        case Kind::nothing:
            return {};
        case Kind::write:
            for (uint64_t at = offset; at < end;) {
                const uint64_t size = std::min<uint64_t>(end - at, HERALD_RECORD_DATA_BYTES_MAX);
                const ByteView data = change.data.subspan(at - change.offset, size);
                const bool zero = all_zero(data);
                auto appended =
                    append_range(zero ? hrl::RecordKind::zeroes : hrl::RecordKind::write, at, size,
                                 zero ? ByteView() : data, change.time_ns);
                if (!appended) return appended;
                at += size;
            }
            return {};
        case Kind::zeroes:
            return range(hrl::RecordKind::zeroes);
        case Kind::discard:
            return range(hrl::RecordKind::discard);
        case Kind::secure_erase:
            return range(hrl::RecordKind::secure_erase);
        case Kind::reread:
            return end > offset ? append_reread(offset, end - offset, change.time_ns)
                                : Result<void>();
        case Kind::tag:
            return append_tag(change);
        case Kind::resize: {
            // An earlier one that this session began after.
            if (ordered_->disk_bytes() == options_.disk_bytes &&
                change.length != options_.disk_bytes) {
                return {};
            }
            if (change.length != options_.disk_bytes) {
                return fail(ErrorKind::resync, "the disk has {} bytes now, it had {}",
                            change.length, options_.disk_bytes);
            }
            hrl::Record record;
            record.kind = hrl::RecordKind::resize;
            record.length = change.length;
            return append(record, change.time_ns);
        }
        case Kind::ordered:
            return append_mode(hrl::StreamMode::ordered, change);
        case Kind::extents:
            return append_mode(hrl::StreamMode::extents, change);
        case Kind::map:
            return append_mode(hrl::StreamMode::map, change);
    }
    return {};
}

Result<bool> DiskStream::emit_changes(uint64_t bytes_max) {
    if (!ordered_) return false;
    uint64_t bytes = 0;
    size_t changes = 0;
    while (bytes < bytes_max && changes < kChangesPerBatch) {
        auto change = ordered_->next();
        if (!change) return pass(change);
        if (!*change) break;
        auto appended = append_change(**change);
        if (!appended) return pass(appended);
        ordered_->emitted(builder_.last_position());
        bytes += (*change)->data.size();
        ++changes;
    }
    if (changes == 0) return false;
    at_step_("replicator.changes_emitted");
    auto released = ordered_->release();
    if (!released) return pass(released);
    at_step_("replicator.changes_released");
    return true;
}

Result<void> DiskStream::request_tag(const hrl::Tag& tag) {
    HERALD_ASSERT(ordered_ != nullptr);
    if (needs_scan_ || scan_open_) {
        return fail(ErrorKind::retry, "a scan is under way, or is needed first");
    }
    if (tags_requested_.size() >= kTagsMax) {
        return fail(ErrorKind::retry, "{} tags were not seen yet", tags_requested_.size());
    }
    tags_requested_[tag.id] = tag;
    auto answer = ordered_->tag(tag.id);
    if (answer && answer->landed) return {};
    tags_requested_.erase(tag.id);
    if (!answer) return pass(answer);
    return fail(ErrorKind::retry, "{}", answer->cause);
}

std::optional<DiskStream::TagPlace> DiskStream::tag_place(const Uuid& tag) {
    const auto found = tags_placed_.find(tag);
    if (found == tags_placed_.end()) return std::nullopt;
    TagPlace place = std::move(found->second);
    tags_placed_.erase(found);
    return place;
}

}  // namespace herald::replicator
