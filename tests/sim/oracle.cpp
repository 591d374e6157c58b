// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/oracle.h"

#include "user/hrl/segment_reader.h"

namespace herald::sim {

using hrl::RecordKind;

void Oracle::made(const hrl::Segment& segment, std::shared_ptr<const History> history) {
    made_[xxh3_128(segment.bytes)] = {segment.header.epoch, segment.header.first_position,
                                      std::move(history)};
}

// Where a point could land, the image is what a power cut at that moment could have left.
void Oracle::check_boundary(const hrl::Record& record, const History& history) {
    auto verdict = state_.observe(record);
    if (!verdict) violated("the stream's state: {}", verdict.error().message);
    if (state_.mode() != hrl::StreamMode::ordered || !state_.refusal().empty()) return;
    ++boundaries_;
    for (uint64_t cell = 0; cell < image_.size(); ++cell) {
        if (history.allows(cell, image_[cell], record.time_ns)) continue;
        violated(
            "order_within_machine: position {} ({}) is restorable, and its block {} has version "
            "{}, "
            "which no power cut at {} could have left:{}",
            record.position, hrl::to_string(record.kind), cell / kCellsPerBlock, image_[cell],
            record.time_ns, history.describe(cell));
    }
}

void Oracle::granted(const wire::SessionRequest& request, const vault::GrantReply& reply) {
    if (reply.outcome != vault::CatalogOutcome::done) {
        trace_.add("server: session {:.8} refused: {}", to_string(request.session),
                   to_string(reply.outcome));
        return;
    }
    trace_.add("server: session {:.8} granted, epoch {}, head {}", to_string(request.session),
               reply.grant.epoch, reply.grant.head);
    if (reply.grant.epoch < epoch_) {
        violated("fenced: epoch {} granted after {}", reply.grant.epoch, epoch_);
    }
    epoch_ = reply.grant.epoch;
}

const vault::MemoryDisk* Oracle::entry(const Server& server) const {
    const auto found = server.catalog->state().find(disk_);
    return found == server.catalog->state().end() ? nullptr : &found->second;
}

void Oracle::apply(Server& server, const vault::SegmentRow& row) {
    const auto object = server.store.objects.find(row.object);
    if (object == server.store.objects.end()) {
        violated("acked_is_kept: position {} is catalogued, its object is not in the store",
                 row.first_position);
    }
    if (xxh3_128(object->second) != row.digest) {
        violated("acked_is_kept: the object of position {} is not what was sent",
                 row.first_position);
    }
    if (row.first_position != head_ + 1) {
        violated("a hole in the stream: position {} follows {}", row.first_position, head_);
    }
    const auto made = made_.find(row.digest);
    if (made == made_.end()) {
        violated("torn_is_refused: position {} holds a segment that nobody made",
                 row.first_position);
    }
    if (made->second.epoch != row.epoch || made->second.first != row.first_position) {
        violated("torn_is_refused: position {} holds the segment of another place",
                 row.first_position);
    }
    state_.begin_segment(disk_bytes_);
    const History* const history = made->second.history.get();
    auto summary = hrl::verify_segment(
        hrl::memory_source(object->second, row.object), [&](const hrl::Record& r) -> Result<void> {
            if (r.kind == RecordKind::tag) {
                auto tag = hrl::decode_tag(r.data);
                if (tag) images_[tag->id] = image_;
                tag_epochs_[r.position] = row.epoch;
            }
            if (r.kind != RecordKind::write && r.kind != RecordKind::zeroes) {
                if (history) check_boundary(r, *history);
                return {};
            }
            ++data_records_;
            for (uint64_t at = r.offset; at < r.offset + r.length;) {
                const uint64_t end = std::min(at + kCellBytes, r.offset + r.length);
                image_[at / kCellBytes] = r.kind == RecordKind::zeroes
                                              ? 0
                                              : collapse(r.data.subspan(at - r.offset, end - at));
                at = end;
            }
            if (history) check_boundary(r, *history);
            return {};
        });
    if (!summary) violated("torn_is_refused: {}", summary.error().message);
    head_ = row.last_position;
}

void Oracle::committed(Server& server, const vault::Commit& commit) {
    const vault::SegmentRow& row = commit.segment;
    // The same commit again, after its first answer was lost.
    if (const auto same = rows_.find(row.first_position);
        same != rows_.end() && same->second == row.digest) {
        return;
    }
    trace_.add("server: committed {} to {}, epoch {}", row.first_position, row.last_position,
               row.epoch);
    if (row.epoch != epoch_) {
        violated("fenced: epoch {} changed the stream after epoch {} was granted", row.epoch,
                 epoch_);
    }
    apply(server, row);
    rows_[row.first_position] = row.digest;
    check_points(server);
}

// Every point that the catalog offers is the disk of its moment; no tag is refused that was taken
// by the rules.
void Oracle::check_points(Server& server) {
    auto points = server.catalog->points(disk_);
    for (const vault::PointRow& point : *points) {
        // Checked as every boundary is; one that was requested before a crash nobody placed.
        if (ordered_) {
            const auto placed = placed_.find({point.id, tag_epochs_[point.position]});
            if (placed != placed_.end() && !placed->second.empty()) {
                violated("the tag at position {} landed, its replicator says: {}", point.position,
                         placed->second);
            }
            accepted_.insert(point.id);
            continue;
        }
        const auto source = points_.find(point.id);
        if (source == points_.end()) {
            violated("exact_at_point: nobody took the point at position {}", point.position);
        }
        const auto image = images_.find(point.id);
        if (image == images_.end())
            violated("the point at position {} is not in the stream", point.position);
        for (uint64_t cell = 0; cell < image_.size(); ++cell) {
            if (image->second[cell] == source->second[cell]) continue;
            violated("exact_at_point: position {}, block {}: version {} where the disk had {}",
                     point.position, cell / kCellsPerBlock, image->second[cell],
                     source->second[cell]);
        }
        accepted_.insert(point.id);
    }
    auto refused = server.catalog->refused_tags(disk_, 1);
    for (const vault::PointRow& tag : *refused) {
        const auto placed = placed_.find({tag.id, tag_epochs_[tag.position]});
        if (ordered_ && (placed == placed_.end() || !placed->second.empty())) continue;
        violated("the tag at position {} was refused: {}", tag.position, tag.refusal);
    }
}

void Oracle::acknowledged(const wire::SegmentAck& ack, const Server& server) {
    const vault::MemoryDisk* disk = entry(server);
    if (!disk || ack.stored > disk->row.head || ack.received > disk->row.head) {
        violated("acked_is_kept: {} acknowledged, the catalog ends at {}", ack.stored,
                 disk ? disk->row.head : 0);
    }
    acked_ = std::max(acked_, ack.stored);
}

void Oracle::rewound(Server& server) {
    const vault::MemoryDisk* disk = entry(server);
    acked_ = std::min(acked_, disk ? disk->row.head : 0);
    epoch_ = disk ? disk->row.epoch : 0;
    rows_.clear();
    if (disk) {
        for (const auto& [first, row] : disk->segments) rows_[first] = row.digest;
    }
    check_stored(server, true);
}

void Oracle::check_dirty(const Machine& machine, const char* name, const Server& server) const {
    const tracker::Continuity ours = machine.continuity();
    // A gap is known: all is dirty.
    if (machine.has_gap() || machine.events_lost || ours.session.is_nil()) return;
    const vault::MemoryDisk* disk = entry(server);
    if (!disk) violated("dirty_or_delivered: {} trusts its map, the server has no disk", name);
    const vault::DiskRow& row = disk->row;
    // Somebody else's session or segment, or a head that went back: the next grant says so. A
    // session that is only asked for continues ours when it followed it and nothing was stored in
    // it.
    const bool used = !disk->segments.empty() && disk->segments.rbegin()->second.epoch == row.epoch;
    const bool current =
        row.session == ours.session ||
        (row.session == ours.next_session && row.previous_session == ours.session && !used);
    const tracker::SentSegment head{row.head, row.head_segment};
    const bool sent = std::find(ours.sent.begin(), ours.sent.end(), head) != ours.sent.end();
    if (!current || row.head < ours.acked_position || !sent) return;
    for (uint64_t cell = 0; cell < image_.size(); ++cell) {
        const uint64_t block = cell / kCellsPerBlock;
        if (image_[cell] == machine.cells[cell] || machine.dirty(block) ||
            machine.being_written(block)) {
            continue;
        }
        violated(
            "dirty_or_delivered: {}, block {}: the disk has version {}, the stream up to {} gives "
            "{}, and no map has the block",
            name, block, machine.cells[cell], head_, image_[cell]);
    }
}

void Oracle::check_stored(Server& server, bool replay) {
    const vault::MemoryDisk* disk = entry(server);
    const uint64_t head = disk ? disk->row.head : 0;
    if (head < acked_) {
        violated("acked_is_kept: {} was acknowledged, the catalog ends at {}", acked_, head);
    }
    if (!disk) return;
    std::map<uint64_t, Digest128> rows;
    for (const auto& [first, row] : disk->segments) {
        rows[first] = row.digest;
        const auto object = server.store.objects.find(row.object);
        if (object == server.store.objects.end() || object->second.size() != row.bytes) {
            violated("acked_is_kept: the object of position {} is gone or torn", first);
        }
    }
    if (rows != rows_) violated("acked_is_kept: the catalog's segments are not what was committed");
    if (!replay) return;
    head_ = 0;
    state_ = {};
    image_.assign(image_.size(), 0);
    images_.clear();
    for (const auto& [first, row] : disk->segments) apply(server, row);
    if (head_ != head) violated("the catalog's head is {}, its segments end at {}", head, head_);
    check_points(server);
    for (const auto& [block, digest] : disk->digests) {
        const uint64_t first = block * kCellsPerBlock;
        const uint64_t count = std::min<uint64_t>(kCellsPerBlock, image_.size() - first);
        const auto cells = std::span(image_).subspan(first, count);
        if (digest != xxh3_128(expand(cells, first, disk_bytes_))) {
            violated("the catalog's digest of block {} is not that of its newest bytes", block);
        }
    }
}

}  // namespace herald::sim
