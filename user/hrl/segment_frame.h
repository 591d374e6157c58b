// SPDX-License-Identifier: Apache-2.0
// The frame of a segment: header in front, index and footer behind. Parsing and checking them
// is all there is to opening a segment; blocks are not touched.
// Promise: every byte of header, index and footer is checked; lengths are bounded by limits.h
// and by the file's size before they size anything.
// Callers: SegmentReader.
// Layout: docs/formats/hrl.md
#pragma once

#include <vector>

#include "user/hrl/buffer.h"
#include "user/hrl/byte_source.h"
#include "user/hrl/layout.h"
#include "user/hrl/recovery.h"
#include "user/hrl/segment_header.h"
#include "user/seal/keyring.h"

namespace herald::hrl {

// What a reader may do without, and what it insists on.
struct ReadOptions {
    // Where the key of a sealed file comes from.
    const seal::KeySource* keys = nullptr;
    // Without that key, read what is plain: all but the data of writes.
    bool without_key = false;
    // Read layers, too: their records do not stand as they happened.
    bool layers = false;
    // Refuse a file that is not sealed: anyone could have written it.
    bool sealed_only = false;
};

struct CheckedHeader {
    HeaderState state = HeaderState::damaged;
    Error problem;  // unless good
    SegmentHeader header;
    uint64_t checksum = 0;  // seeds the chain
    bool has_unknown_optional = false;
    std::optional<seal::FileOpener> opener;  // of a sealed file whose key is there
};
CheckedHeader read_header(ByteSource& source, const ReadOptions& options);

struct Tail {
    FooterDisk footer{};
    Buffer index_bytes;
    std::span<const IndexEntryDisk> entries;  // in index_bytes
    std::vector<SectionHeaderDisk> sections;  // of optional features; well formed, not understood
};
// The index and footer of a whole file. corrupt: the file is not whole, and why; any other kind:
// the source could not be read.
Result<Tail> read_tail(ByteSource& source, CheckedHeader& header);

}  // namespace herald::hrl
