// SPDX-License-Identifier: Apache-2.0
#include "user/vault/catalog_rows.h"

namespace herald::vault {

const char kSelectDisk[] =
    "SELECT disk, machine, name, identity, disk_bytes, epoch, session, previous_session, head,"
    " head_segment, segments, stored_bytes, raw_bytes, points, newest_point_ns, state"
    " FROM disks WHERE disk = ?";
const char kSelectDisks[] =
    "SELECT disk, machine, name, identity, disk_bytes, epoch, session, previous_session, head,"
    " head_segment, segments, stored_bytes, raw_bytes, points, newest_point_ns, state"
    " FROM disks ORDER BY name, disk";
const char kSelectSegment[] =
    "SELECT first_position, last_position, epoch, segment, previous_segment, bytes, raw_bytes,"
    " digest, object FROM segments WHERE disk = ? AND first_position = ?";
// Segments do not overlap: the first of interest is the last that begins at or before `after`.
const char kSelectSegments[] =
    "SELECT first_position, last_position, epoch, segment, previous_segment, bytes, raw_bytes,"
    " digest, object FROM segments WHERE disk = ?1 AND last_position > ?2 AND first_position >="
    " (SELECT coalesce(max(first_position), 0) FROM segments"
    "  WHERE disk = ?1 AND first_position <= ?2)"
    " ORDER BY first_position LIMIT ?3";
const char kSelectPoints[] =
    "SELECT id, position, time_ns, kind, consistency, name, disk_bytes, refusal, sent_total,"
    " raw_total FROM tags WHERE disk = ? AND refusal = '' ORDER BY position";
const char kSelectRefused[] =
    "SELECT id, position, time_ns, kind, consistency, name, disk_bytes, refusal, 0, 0"
    " FROM tags WHERE disk = ? AND refusal <> '' ORDER BY position DESC LIMIT ?";

Result<DiskRow> read_disk(const Statement& row) {
    DiskRow disk;
    disk.disk = row.id(0);
    disk.machine = row.id(1);
    disk.name = row.text(2);
    disk.identity = row.text(3);
    disk.disk_bytes = row.number(4);
    disk.epoch = row.number(5);
    disk.session = row.id(6);
    disk.previous_session = row.id(7);
    disk.head = row.number(8);
    disk.head_segment = row.id(9);
    disk.segments = row.number(10);
    disk.stored_bytes = row.number(11);
    disk.raw_bytes = row.number(12);
    disk.points = row.number(13);
    disk.newest_point_ns = row.number(14);
    auto state = StreamState::parse(row.text(15));
    if (!state) return pass(state, fmt::format("catalog: disk {}", to_string(disk.disk)));
    disk.state = std::move(*state);
    return disk;
}

SegmentRow read_segment(const Statement& row) {
    SegmentRow segment;
    segment.first_position = row.number(0);
    segment.last_position = row.number(1);
    segment.epoch = row.number(2);
    segment.segment = row.id(3);
    segment.previous_segment = row.id(4);
    segment.bytes = row.number(5);
    segment.raw_bytes = row.number(6);
    segment.digest = row.digest(7);
    segment.object = row.text(8);
    return segment;
}

namespace {

PointRow read_tag(const Statement& row) {
    PointRow tag;
    tag.id = row.id(0);
    tag.position = row.number(1);
    tag.time_ns = row.number(2);
    tag.kind = hrl::TagKind(row.number(3));
    tag.consistency = hrl::Consistency(row.number(4));
    tag.name = row.text(5);
    tag.disk_bytes = row.number(6);
    tag.refusal = row.text(7);
    tag.sent_bytes = row.number(8);
    tag.raw_bytes = row.number(9);
    return tag;
}

}  // namespace

Result<std::vector<PointRow>> read_tags(Statement& query) {
    std::vector<PointRow> tags;
    for (;;) {
        auto row = query.step();
        if (!row) return pass(row);
        if (!*row) return tags;
        tags.push_back(read_tag(query));
    }
}

Result<void> add_segment(Database& database, const Uuid& disk, const SegmentRow& segment) {
    return database.prepare("INSERT INTO segments VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
        .bind(disk)
        .bind(segment.first_position)
        .bind(segment.last_position)
        .bind(segment.epoch)
        .bind(segment.segment)
        .bind(segment.previous_segment)
        .bind(segment.bytes)
        .bind(segment.raw_bytes)
        .bind_bytes(segment.digest.bytes)
        .bind(segment.object)
        .run();
}

Result<void> add_tag(Database& database, const DiskRow& disk, const PointRow& tag) {
    return database.prepare("INSERT INTO tags VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
        .bind(disk.disk)
        .bind(tag.position)
        .bind(tag.id)
        .bind(tag.time_ns)
        .bind(uint64_t(tag.kind))
        .bind(uint64_t(tag.consistency))
        .bind(tag.name)
        .bind(tag.disk_bytes)
        .bind(tag.refusal)
        .bind(disk.stored_bytes)
        .bind(disk.raw_bytes)
        .run();
}

}  // namespace herald::vault
