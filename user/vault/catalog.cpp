// SPDX-License-Identifier: Apache-2.0
#include "user/vault/catalog.h"

namespace herald::vault {

PointRow to_row(const TagVerdict& verdict) {
    PointRow row;
    row.id = verdict.tag.id;
    row.position = verdict.position;
    row.time_ns = verdict.tag.time_ns;
    row.kind = verdict.tag.kind;
    row.consistency = verdict.tag.consistency;
    row.name = verdict.tag.name;
    row.disk_bytes = verdict.disk_bytes;
    row.refusal = verdict.refusal;
    return row;
}

wire::DiskInfo to_info(const DiskRow& row) {
    wire::DiskInfo info;
    info.disk = row.disk;
    info.machine = row.machine;
    info.name = row.name;
    info.identity = row.identity;
    info.disk_bytes = row.disk_bytes;
    info.epoch = row.epoch;
    info.head = row.head;
    info.segments = row.segments;
    info.stored_bytes = row.stored_bytes;
    info.newest_point_ns = row.newest_point_ns;
    info.points = row.points;
    info.state = row.state.state();
    info.cause = row.state.cause();
    info.mode = hrl::to_string(row.state.mode());
    return info;
}

wire::SegmentInfo to_info(const SegmentRow& row) {
    wire::SegmentInfo info;
    info.first_position = row.first_position;
    info.last_position = row.last_position;
    info.epoch = row.epoch;
    info.segment = row.segment;
    info.bytes = row.bytes;
    info.raw_bytes = row.raw_bytes;
    info.digest = to_hex(row.digest.bytes);
    return info;
}

wire::PointInfo to_info(const PointRow& row) {
    wire::PointInfo info;
    info.id = row.id;
    info.position = row.position;
    info.time_ns = row.time_ns;
    info.kind = hrl::to_string(row.kind);
    info.consistency = hrl::to_string(row.consistency);
    info.name = row.name;
    info.disk_bytes = row.disk_bytes;
    info.sent_bytes = row.sent_bytes;
    info.refusal = row.refusal;
    info.raw_bytes = row.raw_bytes;
    return info;
}

const char* to_string(CatalogOutcome outcome) {
    switch (outcome) {
        case CatalogOutcome::done:
            return "done";
        case CatalogOutcome::forbidden:
            return "forbidden";
        case CatalogOutcome::fenced:
            return "fenced";
        case CatalogOutcome::diverged:
            return "diverged";
        case CatalogOutcome::not_found:
            return "not_found";
    }
    return "unknown";
}

}  // namespace herald::vault
