// SPDX-License-Identifier: Apache-2.0
// Replica logs for tests: built piece by piece, so that also what LogWriter never writes can be
// made (full blocks, either order, no data checksums), and read back.
#pragma once

#include <random>

#include "tests/catch.hpp"
#include "tests/tier.h"
#include "user/hrl/v2/checksum.h"
#include "user/hrl/v2/log_reader.h"
#include "user/hrl/v2/log_writer.h"

namespace herald::hrl::v2::test {

using herald::test::seed_from_environment;
using herald::test::tier_scale;

inline constexpr uint32_t kLeapDay = 762'523'200;  // 2024-02-29T12:00:00Z

inline Uuid log_id(uint8_t fill) {
    Uuid id;
    id.bytes.fill(std::byte{fill});
    return id;
}

struct Write {
    uint64_t offset = 0;
    Bytes data;
    uint32_t time = kLeapDay;
    bool operator==(const Write&) const = default;
};

inline Bytes noise(std::mt19937_64& random, size_t size) {
    Bytes bytes(size);
    for (std::byte& b : bytes) b = std::byte(random());
    return bytes;
}

inline std::vector<Write> sample_writes(uint64_t seed, size_t count, uint64_t disk_bytes = 1 << 20,
                                        size_t sectors_max = 4) {
    std::mt19937_64 random(seed);
    std::vector<Write> writes;
    for (size_t i = 0; i < count; ++i) {
        Write write;
        write.data = noise(random, 512 * (1 + random() % sectors_max));
        write.offset = 512 * (random() % ((disk_bytes - write.data.size()) / 512 + 1));
        write.time = kLeapDay + uint32_t(i / 3);
        writes.push_back(std::move(write));
    }
    return writes;
}

struct LogShape {
    uint32_t version = kVersion2;
    EntryOrder order = EntryOrder::newest_first;
    uint32_t metadata_bytes = 512;
    size_t entries_per_block = 14;
    bool data_checksums = true;
    bool leading_block = true;
    bool closed = true;
    uint8_t id = 0x33;
    uint8_t previous = 0;
};

inline Bytes build_log(const std::vector<Write>& writes, const LogShape& shape = {}) {
    LogHeader header;
    header.version = shape.version;
    header.time = kLeapDay;
    header.metadata_bytes = shape.metadata_bytes;
    header.id = log_id(shape.id);
    header.previous_id = log_id(shape.previous);
    Bytes bytes(kHeaderBytes);
    const auto append = [&](ByteView from) { bytes.insert(bytes.end(), from.begin(), from.end()); };
    size_t last = 0;
    std::vector<Entry> entries;
    const auto block = [&] {
        const size_t at = bytes.size();
        append(
            encode_metadata(last == 0 ? 0 : at - last, entries, shape.order, shape.metadata_bytes));
        last = at;
        entries.clear();
    };
    if (shape.leading_block) block();
    for (const Write& write : writes) {
        append(write.data);
        entries.push_back({write.offset, uint32_t(write.data.size()), write.time,
                           shape.data_checksums ? checksum_of(write.data) : 0});
        if (entries.size() == shape.entries_per_block) block();
    }
    if (!entries.empty()) block();
    header.entry_count = writes.size();
    header.current_bytes = bytes.size();
    header.end_offset = shape.closed ? bytes.size() : 0;
    const LogHeaderDisk disk = encode_header(header);
    std::memcpy(bytes.data(), &disk, sizeof disk);
    return bytes;
}

struct ReadBack {
    bool opened = false;
    bool whole = false;
    std::vector<Write> writes;
    std::string loss;
    std::string error;
    ErrorKind kind = ErrorKind::retry;
};

inline ReadBack read_back(ByteView bytes, std::optional<EntryOrder> assumed = std::nullopt) {
    ReadBack back;
    auto reader = LogReader::open(memory_source(bytes, "sample.hrl"), assumed);
    if (!reader) {
        back.error = reader.error().message;
        back.kind = reader.error().kind;
        return back;
    }
    back.opened = true;
    back.whole = reader->whole();
    for (uint64_t position = 1;; ++position) {
        auto record = reader->next();
        if (!record) {
            back.error = record.error().message;
            back.kind = record.error().kind;
            break;
        }
        if (!*record) break;
        const Record& found = **record;
        REQUIRE(found.kind == RecordKind::write);
        REQUIRE(found.position == position);
        REQUIRE(validate(found));
        back.writes.push_back(
            {found.offset, Bytes(found.data.begin(), found.data.end()), time_of(found.time_ns)});
    }
    back.loss = reader->loss();
    return back;
}

// True when `part` is the beginning of `all`.
inline bool is_prefix(const std::vector<Write>& part, const std::vector<Write>& all) {
    return part.size() <= all.size() && std::equal(part.begin(), part.end(), all.begin());
}

}  // namespace herald::hrl::v2::test
