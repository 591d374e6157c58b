// SPDX-License-Identifier: Apache-2.0
// Upload is a segment that was received and verified in full, with what it would change.
// Promise: a body whose digest, header or any block is not what it claims never becomes one.
// Callers: any thread. Memory: the effects; the body stays the caller's.
#pragma once

#include "user/process_server/intake.h"
#include "user/vault/catalog.h"

namespace herald::process_server {

struct Upload {
    OfferedSegment offered;
    vault::SegmentRow row;
    vault::SegmentEffects effects;
};

// What the request says the body is.
struct UploadClaim {
    Uuid machine;
    Uuid disk;
    uint64_t epoch = 0;
    uint64_t first = 0;
    std::string digest;  // 32 hex digits
};

// corrupt: not that, or not whole.
Result<Upload> verify_upload(const UploadClaim& claim, ByteView body);

// "segments/<disk>/<epoch>-<first position>-<segment>.hrl", numbers as 16 hex digits so that the
// order of names is the order of positions.
std::string object_name(const Uuid& disk, uint64_t epoch, uint64_t first, const Uuid& segment);

struct ObjectPlace {
    Uuid disk;
    uint64_t epoch = 0;
    uint64_t first = 0;
};
// Nothing when the name is not one that object_name() makes.
std::optional<ObjectPlace> parse_object_name(std::string_view name);

OfferedSegment to_offered(const vault::SegmentRow& row);

}  // namespace herald::process_server
