// SPDX-License-Identifier: Apache-2.0
// The HTTP protocol between replicators, process servers and operators: paths, header names and
// error codes. JSON for messages, application/octet-stream for segments and digests.
// Layout: docs/reference/protocol.md. The messages: user/wire/message_structs.h.
//
//   machine certificate:
//     POST /v1/disks/{disk}/session             SessionRequest -> SessionGrant
//     PUT  /v1/disks/{disk}/segments/{first}    segment bytes  -> SegmentAck
//     GET  /v1/disks/{disk}/head                    -> SegmentAck: what a segment's answer says
//     GET  /v1/disks/{disk}/digests?first=&count=   -> count * 16 bytes; zero means not known
//   operator certificate:
//     GET  /v1/disks                            -> {"disks": [DiskInfo]}
//     GET  /v1/disks/{disk}/points              -> {"points": [PointInfo]}, oldest first
//     GET  /v1/disks/{disk}/segments?after=&limit=  -> {"segments": [SegmentInfo]} by position
//     GET  /v1/disks/{disk}/segments/{first}    -> the segment's bytes
//     GET  /v1/status                           -> ServerStatus
//   Every answer that is not 2xx: ErrorBody. 409 with code "fenced" or "diverged" ends a session.
#pragma once

namespace herald::wire {

inline constexpr char kHeaderEpoch[] = "herald-epoch";
inline constexpr char kHeaderDigest[] = "herald-digest";    // 32 hex digits: XXH3-128 of the body
inline constexpr char kHeaderRetryAfter[] = "retry-after";  // seconds

// How often a replicator with nothing to send asks for its disk's head.
inline constexpr unsigned kLookEverySeconds = 30;

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

}  // namespace herald::wire
