// SPDX-License-Identifier: Apache-2.0
// The HTTP protocol between replicators, process servers and operators: paths, header names and
// the messages' fields. JSON for messages, application/octet-stream for segments and digests.
// Layout: docs/reference/protocol.md. Conversions: user/wire/messages.h.
//
//   machine certificate:
//     POST /v1/disks/{disk}/session             SessionRequest -> SessionGrant
//     PUT  /v1/disks/{disk}/segments/{first}    segment bytes  -> SegmentAck
//     GET  /v1/disks/{disk}/digests?first=&count=   -> count * 16 bytes; zero means not known
//   operator certificate:
//     GET  /v1/disks                            -> {"disks": [DiskInfo]}
//     GET  /v1/disks/{disk}/points              -> {"points": [PointInfo]}, oldest first
//     GET  /v1/disks/{disk}/segments?after=&limit=  -> {"segments": [SegmentInfo]} by position
//     GET  /v1/disks/{disk}/segments/{first}    -> the segment's bytes
//     GET  /v1/status                           -> ServerStatus
//   Every answer that is not 2xx: ErrorBody. 409 with code "fenced" or "diverged" ends a session.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "user/base/uuid.h"

namespace herald::wire {

inline constexpr char kHeaderEpoch[] = "herald-epoch";
inline constexpr char kHeaderDigest[] = "herald-digest";    // 32 hex digits: XXH3-128 of the body
inline constexpr char kHeaderRetryAfter[] = "retry-after";  // seconds

// Error codes.
inline constexpr char kErrorFenced[] = "fenced";        // a newer epoch exists
inline constexpr char kErrorDiverged[] = "diverged";    // these positions hold other records
inline constexpr char kErrorAhead[] = "ahead";          // beyond the window; send the head first
inline constexpr char kErrorCorrupt[] = "corrupt";      // the body is not a whole, valid segment
inline constexpr char kErrorFull[] = "store_full";      // no space; Retry-After says when to ask
inline constexpr char kErrorBusy[] = "busy";            // too much under way; Retry-After
inline constexpr char kErrorForbidden[] = "forbidden";  // another machine's disk, or wrong role
inline constexpr char kErrorNotFound[] = "not_found";
inline constexpr char kErrorBadRequest[] = "bad_request";
inline constexpr char kErrorInternal[] = "internal";

struct SessionRequest {
    Uuid session;          // random, chosen by the replicator; asking again with it is harmless
    std::string name;      // for people: "/dev/sda on web1"
    std::string identity;  // "wwn:...", "serial:...", "gpt:...", "loop:..."
    uint64_t disk_bytes = 0;
    uint32_t block_bytes = 0;  // of the digests
};

struct SessionGrant {
    uint64_t epoch = 0;
    uint64_t head = 0;      // newest position in the catalog; 0 for an empty stream
    Uuid head_segment;      // the segment that ends there; nil for an empty stream
    Uuid previous_session;  // the session of the epoch before; nil for the first
    uint32_t window_segments = 0;
    bool digests = false;  // the server knows digests of this disk
    // The epoch that wrote head_segment; 0 for an empty stream. Equal to `epoch`, the session was
    // not only granted before but used: by a later state of this machine, if this one knows nothing
    // of it (a snapshot was reverted).
    uint64_t head_epoch = 0;
};

struct SegmentAck {
    uint64_t received = 0;  // everything up to here is durable at the server
    uint64_t stored = 0;    // everything up to here is durable in store and catalog
};

struct ErrorBody {
    std::string code;
    std::string message;
    uint64_t retry_after_s = 0;
};

struct DiskInfo {
    Uuid disk;
    Uuid machine;
    std::string name;
    std::string identity;
    uint64_t disk_bytes = 0;
    uint64_t epoch = 0;
    uint64_t head = 0;
    uint64_t segments = 0;
    uint64_t stored_bytes = 0;     // segment files
    uint64_t newest_point_ns = 0;  // 0: none
    uint64_t points = 0;
    std::string state;  // "initial sync", "fuzzy", "protected": what the stream's end allows
    std::string cause;  // why it is not "protected"; empty when it is
};

struct PointInfo {
    Uuid id;
    uint64_t position = 0;
    uint64_t time_ns = 0;
    std::string kind;         // as hrl::to_string(TagKind)
    std::string consistency;  // as hrl::to_string(Consistency)
    std::string name;
    uint64_t disk_bytes = 0;
    uint64_t sent_bytes = 0;  // segment files since the point before
    uint64_t raw_bytes = 0;   // the same before compression
};

struct SegmentInfo {
    uint64_t first_position = 0;
    uint64_t last_position = 0;
    uint64_t epoch = 0;
    Uuid segment;
    uint64_t bytes = 0;
    uint64_t raw_bytes = 0;
    std::string digest;  // 32 hex digits: XXH3-128 of the file
};

struct ServerStatus {
    std::string version;
    uint64_t free_bytes = 0;
    uint64_t total_bytes = 0;
    std::string store_state;  // "ok", "warning", "alert", "full"
    uint64_t disks = 0;
    uint64_t connections = 0;
    uint64_t requests = 0;
};

}  // namespace herald::wire
