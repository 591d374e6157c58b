// SPDX-License-Identifier: Apache-2.0
// The messages of the protocol as values. Ids, positions and sizes mean what the glossary says;
// times are nanoseconds since 1970, sizes bytes. Layout: docs/reference/protocol.md
// Callers: any. No behaviour: messages.h converts them to JSON and back.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "herald/wire/protocol.h"
#include "user/base/uuid.h"

namespace herald::wire {

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
    // The stream holds a scan of the whole disk, so that catching up is enough. A server whose
    // catalog was restored from a backup may hold less than the replicator remembers.
    bool complete = false;
};

struct SegmentAck {
    uint64_t received = 0;  // everything up to here is durable at the server
    uint64_t stored = 0;    // everything up to here is durable in store and catalog
    Uuid head_segment;      // the segment that ends at `stored`; nil for an empty stream
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
    // "initial sync", "fuzzy", "protected": what the stream's end allows; "paused": the server
    // cannot store more; "silent": nobody knows, because the machine does not speak.
    std::string state;
    std::string cause;  // why it is not "protected"; empty when it is
    std::string mode;   // of its stream now, as hrl::to_string(StreamMode)
    // When the disk's machine last spoke of it, by the server's clock; 0: not since the server
    // started.
    uint64_t last_heard_ns = 0;
    // For how long it has not; counted from the server's start when last_heard_ns is 0.
    uint64_t unheard_ms = 0;
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
    std::string refusal;      // why it is no recovery point; empty when it is one
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
    // The same of the filesystem that holds the catalog, which may be the same one.
    uint64_t catalog_free_bytes = 0;
    uint64_t catalog_total_bytes = 0;
    std::string catalog_state;
    uint64_t disks = 0;
    uint64_t connections = 0;
    uint64_t requests = 0;
};

}  // namespace herald::wire
