// SPDX-License-Identifier: Apache-2.0
// Sample segments for tests: the same seed always makes the same records and the same file.
#pragma once

#include <random>
#include <string>
#include <vector>

#include "tests/catch.hpp"
#include "tests/tier.h"
#include "user/hrl/segment_reader.h"

namespace herald::hrl::test {

using herald::test::seed_from_environment;
using herald::test::tier_scale;

// A record that owns its data, so that it can be kept and compared.
struct OwnedRecord {
    Record record;
    Bytes data;

    explicit OwnedRecord(const Record& from)
        : record(from), data(from.data.begin(), from.data.end()) {
        record.data = {};
    }
    Record view() const {
        Record whole = record;
        whole.data = data;
        return whole;
    }
    bool operator==(const OwnedRecord& other) const {
        return record.kind == other.record.kind && record.position == other.record.position &&
               record.offset == other.record.offset && record.length == other.record.length &&
               record.time_ns == other.record.time_ns && data == other.data;
    }
};

inline Uuid sample_id(uint8_t fill) {
    Uuid id;
    id.bytes.fill(std::byte{fill});
    return id;
}

inline SegmentHeader sample_header(uint32_t block_bytes, uint64_t first_position = 1) {
    SegmentHeader header;
    header.machine = sample_id(0x11);
    header.disk = sample_id(0x22);
    header.segment = sample_id(0x33);
    header.epoch = 7;
    header.first_position = first_position;
    header.disk_bytes = 1u << 20;
    header.created_ns = 1'700'000'000'000'000'000ull;
    header.block_bytes = block_bytes;
    return header;
}

inline Bytes random_bytes(std::mt19937_64& random, size_t size) {
    Bytes bytes(size);
    for (std::byte& b : bytes) b = std::byte(random());
    return bytes;
}

// Every kind of record, data that compresses and data that does not.
inline std::vector<OwnedRecord> sample_records(uint64_t seed, size_t count, uint64_t disk_bytes,
                                               uint64_t first_position = 1,
                                               size_t sectors_max = 8) {
    std::mt19937_64 random(seed);
    std::vector<OwnedRecord> records;
    for (size_t i = 0; i < count; ++i) {
        Record record;
        record.position = first_position + i;
        record.time_ns = 1'700'000'000'000'000'000ull + i * 1000 + random() % 1000;
        Bytes payload;
        const auto range = [&](size_t sectors) {
            record.length = 512 * (1 + random() % sectors);
            record.offset = 512 * (random() % ((disk_bytes - record.length) / 512 + 1));
        };
        switch (random() % 12) {
            case 0:
                record.kind = RecordKind::zeroes;
                range(64);
                break;
            case 1:
                record.kind = RecordKind::discard;
                range(64);
                break;
            case 2:
                record.kind = RecordKind::secure_erase;
                range(4);
                break;
            case 3:
                record.kind = RecordKind::tag;
                payload = encode_tag({sample_id(uint8_t(i)), record.time_ns, TagKind::manual,
                                      Consistency::filesystem, "before the upgrade"});
                break;
            case 4:
                record.kind = RecordKind::scan_begin;
                payload = encode_scan_begin({i, ScanCause::digest});
                break;
            case 5:
                record.kind = RecordKind::scan_end;
                payload = encode_scan_end({i, true, 3});
                break;
            case 6:
                record.kind = RecordKind::activation;
                payload = encode_activation({sample_id(9), StreamMode::unordered, "ebpf", ""});
                break;
            case 7:
                record.kind = RecordKind::reread;
                range(8);
                break;
            default:
                record.kind = RecordKind::write;
                range(sectors_max);
                payload = random() % 2 ? random_bytes(random, record.length)
                                       : Bytes(record.length, std::byte(random()));
                break;
        }
        record.data = payload;
        records.emplace_back(record);
    }
    return records;
}

inline Segment finish_segment(SegmentWriter writer, const std::vector<OwnedRecord>& records) {
    for (const OwnedRecord& record : records) {
        auto appended = writer.append(record.view());
        INFO((appended ? std::string() : appended.error().message));
        REQUIRE(appended);
    }
    auto segment = std::move(writer).finish();
    REQUIRE(segment);
    return std::move(*segment);
}

inline Segment write_segment(const SegmentHeader& header, const std::vector<OwnedRecord>& records) {
    return finish_segment(SegmentWriter(header), records);
}

inline Segment write_sealed(const SegmentHeader& header, const std::vector<OwnedRecord>& records,
                            const seal::MachineKey& key) {
    return finish_segment(SegmentWriter(header, {SealedBy::source, &key}), records);
}

// What a reader hands out until it stops, and how it stops.
struct ReadBack {
    bool opened = false;
    bool whole = false;
    std::vector<OwnedRecord> records;
    std::string loss;
    std::string error;
    ErrorKind kind = ErrorKind::retry;
};

inline ReadBack read_back(ByteView bytes, const ReadOptions& options = {}) {
    ReadBack back;
    auto reader = SegmentReader::open(memory_source(bytes, "sample.hrl"), options);
    if (!reader) {
        back.error = reader.error().message;
        back.kind = reader.error().kind;
        return back;
    }
    back.opened = true;
    back.whole = reader->whole();
    for (;;) {
        auto record = reader->next();
        if (!record) {
            back.error = record.error().message;
            back.kind = record.error().kind;
            break;
        }
        if (!*record) break;
        back.records.emplace_back(**record);
    }
    back.loss = reader->loss();
    return back;
}

}  // namespace herald::hrl::test
