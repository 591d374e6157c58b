// SPDX-License-Identifier: Apache-2.0
// What the reader of replica logs must hold on every input, shared by the targets that feed it.
#pragma once

#include "herald/limits.h"
#include "user/hrl/v2/log_reader.h"

namespace herald::fuzz {

inline void read_log(ByteView bytes) {
    using hrl::v2::EntryOrder;
    for (const auto order : {EntryOrder::oldest_first, EntryOrder::newest_first}) {
        auto reader = hrl::v2::LogReader::open(hrl::memory_source(bytes, "input"), order);
        if (!reader) return;
        HERALD_ASSERT(reader->whole() == reader->loss().empty());
        HERALD_ASSERT(reader->end() <= bytes.size());
        uint64_t position = 1;
        uint64_t data_bytes = 0;
        uint64_t sum = 0;
        for (;;) {
            auto record = reader->next();
            if (!record) break;
            if (!*record) {
                HERALD_ASSERT(reader->entries_read() == reader->entry_count());
                break;
            }
            HERALD_ASSERT((*record)->position == position++);
            HERALD_ASSERT(hrl::validate(**record));
            data_bytes += (*record)->length;
            // Touches every byte, so that a sanitizer sees a view that points astray.
            for (const std::byte b : (*record)->data) sum += size_t(b);
        }
        // No byte of the file is handed out twice.
        HERALD_ASSERT(data_bytes + hrl::v2::kHeaderBytes <= reader->end() || data_bytes == 0);
        HERALD_ASSERT(sum <= uint64_t(-1) / 2);
    }
}

}  // namespace herald::fuzz
