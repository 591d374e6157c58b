// SPDX-License-Identifier: Apache-2.0
// Record: one element of a change stream, and the payloads of the records that are not writes.
// Promise: what encode_*() writes, decode_*() reads back or refuses by name; no byte is ignored.
// Every text in a payload is UTF-8 without control characters, at most HERALD_NAME_BYTES_MAX bytes;
// a longer or other one encodes, but validate() refuses the record.
// Layout: docs/formats/hrl.md
#pragma once

#include <cstdint>
#include <string>

#include "user/base/bytes.h"
#include "user/base/result.h"
#include "user/base/uuid.h"

namespace herald::hrl {

enum class RecordKind : uint8_t {
    write = 1,         // data at offset
    zeroes = 2,        // length bytes at offset are zero
    discard = 3,       // length bytes at offset are undefined until written again
    secure_erase = 4,  // as discard
    tag = 5,           // payload: Tag
    resize = 6,        // length is the disk's new size in bytes
    reread = 7,        // the range could not be captured and will be scanned again
    scan_begin = 8,    // payload: ScanBegin; the stream is fuzzy from here
    scan_end = 9,      // payload: ScanEnd
    mode_change = 10,  // payload: ModeChange
    activation = 11,   // payload: Activation; the first record of every session
};

// A record as handed to the writer and by the reader. `data` is borrowed: it stays valid until
// the next call on whoever handed it over.
struct Record {
    RecordKind kind = RecordKind::write;
    uint64_t position = 0;  // 1, 2, 3, ... in the stream
    uint64_t offset = 0;    // bytes from the start of the disk; multiple of 512
    uint64_t length = 0;    // bytes covered; for write the size of data; 0 for markers
    uint64_t time_ns = 0;   // since 1970-01-01T00:00:00Z
    ByteView data;          // write: the bytes; markers: the encoded payload; otherwise empty
    // A write that was read without the key of its file: data is empty, validate() refuses it.
    bool data_is_sealed = false;
    // An entry of a replica log that has no data checksum: nothing but its place is proven.
    bool data_is_unchecked = false;
};

enum class TagKind : uint8_t { manual = 1, scheduled = 2, group = 3, final_ = 4 };

// What the image at a tag is equal to.
enum class Consistency : uint8_t {
    crash = 1,        // a state that a power cut at that moment could have left
    filesystem = 2,   // every mounted file system was frozen: the source, sector for sector
    application = 3,  // as filesystem, with applications quiesced by their scripts
};

struct Tag {
    Uuid id;
    uint64_t time_ns = 0;
    TagKind kind = TagKind::manual;
    Consistency consistency = Consistency::filesystem;
    std::string name;  // at most HERALD_NAME_BYTES_MAX bytes of UTF-8
    bool operator==(const Tag&) const = default;
};

enum class ScanCause : uint8_t {
    initial = 1,   // the whole disk, for the first time
    catch_up = 2,  // the dirty map
    digest = 3,    // blocks whose digests differ
    full = 4,      // the whole disk, by an operator's order
    reread = 5,
};

struct ScanBegin {
    uint64_t scan = 0;  // number of the scan within the session: 1, 2, 3, ...
    ScanCause cause = ScanCause::catch_up;
    bool operator==(const ScanBegin&) const = default;
};

struct ScanEnd {
    uint64_t scan = 0;
    // True when every block that was dirty when the last read began has been delivered and no
    // write happened since: only right after such an end may an unordered stream hold a point.
    bool quiescent = false;
    uint64_t unreadable_blocks = 0;
    bool operator==(const ScanEnd&) const = default;
};

enum class StreamMode : uint8_t { ordered = 1, extents = 2, map = 3, unordered = 4 };

struct ModeChange {
    StreamMode mode = StreamMode::unordered;
    std::string cause;
    bool operator==(const ModeChange&) const = default;
};

// Whatever scan the session before left open is over; the stream is fuzzy until a scan ends.
struct Activation {
    Uuid session;
    StreamMode mode = StreamMode::unordered;
    std::string tracker;  // "ebpf", "dm_cbt", ...
    std::string gap;      // why the dirty map could not be trusted; empty when it could
    bool operator==(const Activation&) const = default;
};

Bytes encode_tag(const Tag& tag);
Bytes encode_scan_begin(const ScanBegin& mark);
Bytes encode_scan_end(const ScanEnd& mark);
Bytes encode_mode_change(const ModeChange& change);
Bytes encode_activation(const Activation& activation);
Result<Tag> decode_tag(ByteView payload);
Result<ScanBegin> decode_scan_begin(ByteView payload);
Result<ScanEnd> decode_scan_end(ByteView payload);
Result<ModeChange> decode_mode_change(ByteView payload);
Result<Activation> decode_activation(ByteView payload);

// Refuses what no stream may hold: unknown kind, misaligned or overflowing range, a write whose
// data is not its length, a payload that does not decode.
Result<void> validate(const Record& record);
// The same when of a write's data only the size can be seen.
Result<void> validate_sealed(const Record& record, uint64_t data_bytes);

const char* to_string(RecordKind kind);
const char* to_string(Consistency consistency);
const char* to_string(TagKind kind);
const char* to_string(ScanCause cause);
const char* to_string(StreamMode mode);

}  // namespace herald::hrl
