// SPDX-License-Identifier: Apache-2.0
// The frame of a segment: header in front, index and footer behind. Parsing and checking them
// is all there is to opening a segment; blocks are not touched.
// Promise: every byte of header, index and footer is checked; lengths are bounded by limits.h
// and by the file's size before they size anything.
// Callers: SegmentReader.
// Layout: docs/formats/hrl.md
#pragma once

#include "user/hrl/buffer.h"
#include "user/hrl/layout.h"
#include "user/hrl/segment_reader.h"

namespace herald::hrl {

struct CheckedHeader {
    SegmentHeader header;
    uint64_t checksum = 0;  // seeds the chain
};
Result<CheckedHeader> read_header(ByteSource& source);

struct Tail {
    FooterDisk footer{};
    Buffer index_bytes;
    std::span<const IndexEntryDisk> entries;  // in index_bytes
};
// The index and footer of a whole file. corrupt: the file is not whole, and why; any other kind:
// the source could not be read.
Result<Tail> read_tail(ByteSource& source, const SegmentHeader& header);

}  // namespace herald::hrl
