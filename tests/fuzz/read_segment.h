// SPDX-License-Identifier: Apache-2.0
// What the reader must hold on every input, shared by the targets that feed it.
#pragma once

#include "user/hrl/segment_reader.h"

namespace herald::fuzz {

inline void read_segment(ByteView bytes) {
    uint64_t records = 0;
    uint64_t data_bytes = 0;
    bool clean = false;
    auto reader = hrl::SegmentReader::open(hrl::memory_source(bytes, "input"));
    if (reader) {
        uint64_t position = reader->header().first_position;
        for (;;) {
            auto record = reader->next();
            if (!record) break;
            if (!*record) {
                clean = reader->whole();
                HERALD_ASSERT(clean == reader->loss().empty());
                break;
            }
            HERALD_ASSERT((*record)->position == position++);
            HERALD_ASSERT(hrl::validate(**record));
            // Touches every byte, so that a sanitizer sees a view that points astray.
            for (const std::byte b : (*record)->data) data_bytes += size_t(b);
            ++records;
        }
    }
    auto summary = hrl::verify_segment(hrl::memory_source(bytes, "input"));
    HERALD_ASSERT(summary.has_value() == clean);
    HERALD_ASSERT(!summary || summary->records == records);
    HERALD_ASSERT(data_bytes <= uint64_t(-1) / 2);
}

}  // namespace herald::fuzz
