// SPDX-License-Identifier: Apache-2.0
// What the reader must hold on every input, shared by the targets that feed it: plain, with the key
// of sealed inputs, and without it.
#pragma once

#include "user/hrl/segment_reader.h"

namespace herald::fuzz {

// Bytes 00, 01, ...: the key of the golden files, so that those are useful inputs.
inline const seal::MachineKey& fuzz_key() {
    static const seal::MachineKey key = [] {
        seal::MachineKey made{{}, {}, seal::Secret(seal::kKeyBytes)};
        made.machine.bytes.fill(std::byte{0x11});
        made.id.bytes.fill(std::byte{0x77});
        for (size_t i = 0; i < seal::kKeyBytes; ++i) made.key.span()[i] = std::byte(i);
        return made;
    }();
    return key;
}

inline void read_segment(ByteView bytes, const hrl::ReadOptions& options) {
    uint64_t records = 0;
    uint64_t data_bytes = 0;
    bool clean = false;
    auto reader = hrl::SegmentReader::open(hrl::memory_source(bytes, "input"), options);
    if (reader) {
        const bool segment = reader->header().contents == hrl::Contents::segment;
        uint64_t position = reader->header().first_position;
        for (;;) {
            auto record = reader->next();
            if (!record) break;
            if (!*record) {
                clean = reader->whole();
                HERALD_ASSERT(clean == reader->loss().empty());
                break;
            }
            if (segment) HERALD_ASSERT((*record)->position == position++);
            if ((*record)->data_is_sealed) {
                HERALD_ASSERT(!reader->opens_data() && (*record)->data.empty());
            } else {
                HERALD_ASSERT(hrl::validate(**record));
            }
            // Touches every byte, so that a sanitizer sees a view that points astray.
            for (const std::byte b : (*record)->data) data_bytes += size_t(b);
            ++records;
        }
        if (!reader->blocks().empty() && clean) {
            HERALD_ASSERT(reader->seek(uint32_t(reader->blocks().size() - 1)));
            HERALD_ASSERT(reader->next());
        }
    }
    auto summary = hrl::verify_segment(hrl::memory_source(bytes, "input"), nullptr, options);
    HERALD_ASSERT(summary.has_value() == clean);
    HERALD_ASSERT(!summary || summary->records == records);
    HERALD_ASSERT(data_bytes <= uint64_t(-1) / 2);
}

inline void read_segment(ByteView bytes) {
    static const seal::Keyring keys = [] {
        seal::Keyring ring;
        ring.add(fuzz_key().copy());
        return ring;
    }();
    read_segment(bytes, {.keys = &keys, .layers = true});
    read_segment(bytes, {.without_key = true, .layers = true});
}

}  // namespace herald::fuzz
