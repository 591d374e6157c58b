// SPDX-License-Identifier: Apache-2.0
#include "user/hrl/record.h"

#include "herald/limits.h"

namespace herald::hrl {

namespace {

tl::unexpected<Error> refuse(const Record& record, std::string_view why) {
    return fail(ErrorKind::corrupt, "record {} ({}, offset {}, length {}): {}", record.position,
                to_string(record.kind), record.offset, record.length, why);
}

Result<void> validate_range(const Record& record) {
    if (record.offset % HERALD_SECTOR_BYTES != 0 || record.length % HERALD_SECTOR_BYTES != 0) {
        return refuse(record, "its range is not a multiple of 512 bytes");
    }
    if (record.length == 0) return refuse(record, "its range is empty");
    if (record.offset > HERALD_DISK_BYTES_MAX ||
        record.length > HERALD_DISK_BYTES_MAX - record.offset) {
        return refuse(record, "its range passes the end of the largest disk");
    }
    return {};
}

template <class T>
Result<void> validate_marker(const Record& record, Result<T> (*decode)(ByteView)) {
    if (record.offset != 0 || record.length != 0) return refuse(record, "a marker has a range");
    auto decoded = decode(record.data);
    if (!decoded) return refuse(record, decoded.error().message);
    return {};
}

}  // namespace

Result<void> validate(const Record& record) {
    if (record.data_is_sealed) return refuse(record, "its data is sealed: give the key");
    return validate_sealed(record, record.data.size());
}

Result<void> validate_sealed(const Record& record, uint64_t data_bytes) {
    if (record.position == 0) return refuse(record, "positions begin at 1");
    if (record.position > HERALD_POSITION_MAX) return refuse(record, "positions end before 2^63");
    switch (record.kind) {
        case RecordKind::write:
            if (data_bytes != record.length) {
                return refuse(record, fmt::format("it carries {} bytes of data", data_bytes));
            }
            if (record.length > HERALD_RECORD_DATA_BYTES_MAX) {
                return refuse(record, "it is larger than a record may be");
            }
            return validate_range(record);
        case RecordKind::zeroes:
        case RecordKind::discard:
        case RecordKind::secure_erase:
        case RecordKind::reread:
            if (!record.data.empty()) return refuse(record, "it may not carry data");
            return validate_range(record);
        case RecordKind::resize:
            if (!record.data.empty()) return refuse(record, "it may not carry data");
            if (record.offset != 0) return refuse(record, "a resize has no offset");
            if (record.length == 0 || record.length % HERALD_SECTOR_BYTES != 0 ||
                record.length > HERALD_DISK_BYTES_MAX) {
                return refuse(record, "no disk has this size");
            }
            return {};
        case RecordKind::tag:
            return validate_marker(record, decode_tag);
        case RecordKind::scan_begin:
            return validate_marker(record, decode_scan_begin);
        case RecordKind::scan_end:
            return validate_marker(record, decode_scan_end);
        case RecordKind::mode_change:
            return validate_marker(record, decode_mode_change);
        case RecordKind::activation:
            return validate_marker(record, decode_activation);
    }
    return refuse(record, fmt::format("kind {} is not known", uint8_t(record.kind)));
}

const char* to_string(RecordKind kind) {
    switch (kind) {
        case RecordKind::write:
            return "write";
        case RecordKind::zeroes:
            return "zeroes";
        case RecordKind::discard:
            return "discard";
        case RecordKind::secure_erase:
            return "secure-erase";
        case RecordKind::tag:
            return "tag";
        case RecordKind::resize:
            return "resize";
        case RecordKind::reread:
            return "reread";
        case RecordKind::scan_begin:
            return "scan-begin";
        case RecordKind::scan_end:
            return "scan-end";
        case RecordKind::mode_change:
            return "mode-change";
        case RecordKind::activation:
            return "activation";
    }
    return "unknown";
}

const char* to_string(Consistency consistency) {
    switch (consistency) {
        case Consistency::crash:
            return "crash";
        case Consistency::filesystem:
            return "filesystem";
        case Consistency::application:
            return "application";
    }
    return "unknown";
}

const char* to_string(TagKind kind) {
    switch (kind) {
        case TagKind::manual:
            return "manual";
        case TagKind::scheduled:
            return "scheduled";
        case TagKind::group:
            return "group";
        case TagKind::final_:
            return "final";
    }
    return "unknown";
}

const char* to_string(ScanCause cause) {
    switch (cause) {
        case ScanCause::initial:
            return "initial";
        case ScanCause::catch_up:
            return "catch-up";
        case ScanCause::digest:
            return "digest";
        case ScanCause::full:
            return "full";
        case ScanCause::reread:
            return "reread";
    }
    return "unknown";
}

const char* to_string(StreamMode mode) {
    switch (mode) {
        case StreamMode::ordered:
            return "ordered";
        case StreamMode::extents:
            return "extents";
        case StreamMode::map:
            return "map";
        case StreamMode::unordered:
            return "unordered";
    }
    return "unknown";
}

}  // namespace herald::hrl
