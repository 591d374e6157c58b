// SPDX-License-Identifier: Apache-2.0
#include "tests/temp_dir.h"
#include "tests/unit/hrl/sample_segments.h"
#include "user/base/file.h"

using namespace herald;
using namespace herald::hrl;
using namespace herald::hrl::test;

TEST_CASE("a segment gives back exactly the records that were appended") {
    const uint64_t seed = seed_from_environment();
    INFO("HERALD_SEED=" << seed);
    for (size_t round = 0; round < 20 * tier_scale(); ++round) {
        std::mt19937_64 random(seed + round);
        const auto block_bytes = uint32_t(512 << random() % 10);
        const uint64_t first = 1 + random() % 1000;
        const auto records = sample_records(seed + round, 1 + random() % 300, 1 << 20, first, 64);
        const SegmentHeader header = sample_header(block_bytes, first);
        const Segment segment = write_segment(header, records);
        CHECK(segment.last_position == first + records.size() - 1);

        const ReadBack back = read_back(segment.bytes);
        CHECK(back.error == "");
        CHECK(back.loss == "");
        CHECK(back.whole);
        CHECK(back.records == records);

        auto summary = verify_segment(memory_source(segment.bytes, "s"));
        REQUIRE(summary);
        CHECK(summary->header == header);
        CHECK(summary->last_position == segment.last_position);
        CHECK(summary->records == records.size());
        CHECK(summary->raw_bytes == segment.raw_bytes);
        CHECK(summary->file_bytes == segment.bytes.size());
        CHECK(summary->last_time_ns == records.back().record.time_ns);
    }
}

TEST_CASE("a segment reads the same from a file as from memory") {
    herald::test::TempDir dir;
    const auto records = sample_records(1, 100, 1 << 20, 1, 200);
    const Segment segment = write_segment(sample_header(4096), records);
    REQUIRE(replace_file(dir.path() / "s.hrl", segment.bytes));
    auto source = file_source(dir.path() / "s.hrl");
    REQUIRE(source);
    size_t at = 0;
    auto summary = verify_segment(std::move(*source), [&](const Record& record) -> Result<void> {
        CHECK(OwnedRecord(record) == records[at++]);
        return {};
    });
    REQUIRE(summary);
    CHECK(at == records.size());
}

TEST_CASE("the index says what each block holds") {
    const auto records = sample_records(2, 60, 1 << 20);
    const Segment segment = write_segment(sample_header(4096), records);
    auto reader = SegmentReader::open(memory_source(segment.bytes, "s"));
    REQUIRE(reader);
    REQUIRE(reader->blocks().size() > 3);
    CHECK(reader->last_position() == 60u);
    size_t at = 0;
    for (const IndexEntryDisk& block : reader->blocks()) {
        CHECK(block.first_position == at + 1);
        uint32_t kinds = 0;
        for (uint32_t i = 0; i < block.record_count; ++i) {
            const Record record = records[at++].view();
            kinds |= 1u << unsigned(record.kind);
            if (record.length == 0) continue;
            CHECK(block.disk_offset_min <= record.offset);
            CHECK(block.disk_offset_end >= record.offset + record.length);
            CHECK(block.time_min_ns <= record.time_ns);
            CHECK(block.time_max_ns >= record.time_ns);
        }
        CHECK(block.kinds == kinds);
    }
    CHECK(at == records.size());
}

TEST_CASE("the largest record fits in a segment of the smallest blocks") {
    std::mt19937_64 random(3);
    Record record;
    record.position = 1;
    record.length = HERALD_RECORD_DATA_BYTES_MAX;
    const Bytes data = random_bytes(random, record.length);
    record.data = data;
    SegmentHeader header = sample_header(512);
    header.disk_bytes = HERALD_RECORD_DATA_BYTES_MAX;
    const std::vector<OwnedRecord> records{OwnedRecord(record)};
    const Segment segment = write_segment(header, records);
    CHECK(read_back(segment.bytes).records == records);
}

TEST_CASE("a refused record changes nothing in the segment") {
    const auto records = sample_records(4, 3, 1 << 20);
    SegmentWriter writer(sample_header(4096));
    REQUIRE(writer.append(records[0].view()));
    Record gap = records[1].view();
    gap.position = 3;
    CHECK_FALSE(writer.append(gap));
    Record crooked = records[1].view();
    crooked.kind = RecordKind::write;
    crooked.offset = 7;
    CHECK_FALSE(writer.append(crooked));
    CHECK(writer.next_position() == 2);
    CHECK(writer.records() == 1);
    REQUIRE(writer.append(records[1].view()));
    REQUIRE(writer.append(records[2].view()));
    auto segment = std::move(writer).finish();
    REQUIRE(segment);
    CHECK(segment->bytes == write_segment(sample_header(4096), records).bytes);
}

TEST_CASE("a segment without records, or with an impossible header, is refused") {
    CHECK_FALSE(SegmentWriter(sample_header(4096)).finish());
    const auto records = sample_records(4, 1, 1 << 20);
    const auto refused = [&](auto change) {
        SegmentHeader header = sample_header(4096);
        change(header);
        SegmentWriter writer(header);
        CHECK_FALSE(writer.append(records[0].view()));
        CHECK_FALSE(std::move(writer).finish());
    };
    refused([](SegmentHeader& h) { h.block_bytes = 511; });
    refused([](SegmentHeader& h) { h.block_bytes = HERALD_HRL_BLOCK_BYTES_MAX + 1; });
    refused([](SegmentHeader& h) { h.first_position = 0; });
    refused([](SegmentHeader& h) { h.disk_bytes = 513; });
    refused([](SegmentHeader& h) { h.disk_bytes = HERALD_DISK_BYTES_MAX + 512; });
}

TEST_CASE("compression is used when it saves a sixteenth and not otherwise") {
    std::mt19937_64 random(5);
    const auto size_of_segment = [](const Bytes& data) {
        Record record;
        record.position = 1;
        record.length = data.size();
        record.data = data;
        return write_segment(sample_header(65536), {OwnedRecord(record)}).bytes.size();
    };
    constexpr size_t kFrame = 256 + 48 + 88 + 64;
    Bytes data = random_bytes(random, 32768);
    CHECK(size_of_segment(data) == kFrame + 40 + data.size());
    std::fill(data.begin() + 30720, data.end(), std::byte{1});  // saves nearly 2048 of 32808
    CHECK(size_of_segment(data) == kFrame + 40 + data.size());
    std::fill(data.begin() + 28672, data.end(), std::byte{1});  // saves nearly 4096
    CHECK(size_of_segment(data) < kFrame + data.size() - 3500);
}

TEST_CASE("4 KiB writes cost at most 1.5 percent and 256 KiB writes 0.2 percent of overhead") {
    std::mt19937_64 random(6);
    const auto overhead = [&](size_t record_bytes) {
        SegmentHeader header = sample_header(HERALD_HRL_BLOCK_BYTES_MAX);
        header.disk_bytes = 1ull << 40;
        SegmentWriter writer(header);
        uint64_t payload = 0;
        while (payload < HERALD_SEGMENT_BYTES_DEFAULT) {
            Record record;
            record.position = writer.next_position();
            record.length = record_bytes;
            const Bytes fresh = random_bytes(random, record_bytes);
            record.data = fresh;
            REQUIRE(writer.append(record));
            payload += record_bytes;
        }
        auto segment = std::move(writer).finish();
        REQUIRE(segment);
        return double(segment->bytes.size()) / double(payload) - 1;
    };
    CHECK(overhead(4096) <= 0.015);
    CHECK(overhead(256 << 10) <= 0.002);
}
