// SPDX-License-Identifier: Apache-2.0
// From v2 to v3 and back; what is lost is said.
#include "user/hrl/convert.h"

#include "tests/unit/hrl/sample_segments.h"
#include "tests/unit/hrl/v2/sample_logs.h"

using namespace herald;
using namespace herald::hrl;
namespace logs = herald::hrl::v2::test;
namespace segments = herald::hrl::test;

namespace {

std::unique_ptr<Journal> open(const Bytes& bytes) {
    auto journal = Journal::open(memory_source(bytes, "journal.hrl"));
    REQUIRE(journal);
    return std::move(*journal);
}

void each(const Bytes& bytes, const std::function<Result<void>(const Record&)>& visit) {
    REQUIRE(verify_journal(*open(bytes), visit));
}

Bytes image_of(const Bytes& bytes, uint64_t disk_bytes) {
    Bytes disk(disk_bytes);
    each(bytes, [&](const Record& record) -> Result<void> {
        const auto at = disk.begin() + ptrdiff_t(record.offset);
        switch (record.kind) {
            case RecordKind::write:
                std::copy(record.data.begin(), record.data.end(), at);
                break;
            case RecordKind::zeroes:
            case RecordKind::discard:
            case RecordKind::secure_erase:
                std::fill_n(at, record.length, std::byte{0});
                break;
            default:
                break;
        }
        return {};
    });
    return disk;
}

Bytes to_log(const Bytes& from) {
    Bytes bytes;
    auto sink = memory_sink(bytes);
    auto converter = LogConverter::open(*sink, {});
    REQUIRE(converter);
    each(from, [&](const Record& record) { return converter->add(record); });
    REQUIRE(converter->finish());
    return bytes;
}

std::vector<Segment> to_segments(const Bytes& from, uint32_t blocks_max) {
    std::vector<Segment> made;
    Bytes bytes;
    std::unique_ptr<ByteSink> sink;
    const auto begin = [&]() -> Result<ByteSink*> {
        bytes.clear();
        sink = memory_sink(bytes);
        return sink.get();
    };
    const auto end = [&](const Segment& segment) -> Result<void> {
        CHECK(segment.bytes.empty());
        CHECK(segment.file_bytes == bytes.size());
        made.push_back(segment);
        made.back().bytes = bytes;
        return {};
    };
    SegmentConverter converter(segments::sample_header(4096, 100), {begin, end}, blocks_max);
    each(from, [&](const Record& record) { return converter.add(record); });
    auto count = converter.finish();
    REQUIRE(count);
    CHECK(*count == made.size());
    return made;
}

bool names(const std::vector<std::string>& losses, const std::string& text) {
    return std::ranges::any_of(
        losses, [&](const std::string& loss) { return loss.find(text) != std::string::npos; });
}

}  // namespace

TEST_CASE("a log converted to segments and back holds the same writes") {
    const uint64_t seed = logs::seed_from_environment();
    INFO("HERALD_SEED=" << seed);
    const auto writes = logs::sample_writes(seed, 500);
    const Bytes log = logs::build_log(writes);
    for (const uint32_t blocks_max : {1u, 20u, HERALD_HRL_BLOCKS_MAX - 1}) {
        const auto made = to_segments(log, blocks_max);
        CHECK((made.size() == 1) == (blocks_max > 20));
        Bytes back;
        auto sink = memory_sink(back);
        auto converter = LogConverter::open(*sink, {});
        REQUIRE(converter);
        Uuid previous;
        uint64_t position = 100;
        for (const Segment& segment : made) {
            CHECK(segment.header.previous_segment == previous);
            CHECK(segment.header.first_position == position);
            previous = segment.header.segment;
            position = segment.last_position + 1;
            each(segment.bytes, [&](const Record& record) { return converter->add(record); });
        }
        REQUIRE(converter->finish());
        CHECK(logs::read_back(back).writes == writes);
    }
}

TEST_CASE("a segment with every kind of record becomes a log with the same effect") {
    for (uint64_t seed = 1; seed <= 10; ++seed) {
        const auto records = segments::sample_records(seed, 200, 1 << 20);
        const Bytes segment = segments::write_segment(segments::sample_header(4096), records).bytes;
        const Bytes log = to_log(segment);
        CHECK(image_of(log, 1 << 20) == image_of(segment, 1 << 20));
    }
}

TEST_CASE("a survey names everything that v2 cannot carry, with counts") {
    Survey survey;
    Record record;
    record.position = 1;
    const auto add = [&](RecordKind kind, uint64_t length, uint64_t time_ns) {
        record.kind = kind;
        record.length = length;
        record.time_ns = time_ns;
        survey.add(record);
    };
    const uint64_t time = v2::time_ns_of(logs::kLeapDay);
    add(RecordKind::write, 512, time);
    CHECK(survey.losses(JournalFormat::v3, JournalFormat::v2).size() == 2);
    CHECK(survey.losses(JournalFormat::v2, JournalFormat::v2).empty());
    add(RecordKind::tag, 0, time);
    add(RecordKind::tag, 0, time);
    add(RecordKind::scan_begin, 0, time);
    add(RecordKind::scan_end, 0, time);
    add(RecordKind::mode_change, 0, time);
    add(RecordKind::activation, 0, time);
    add(RecordKind::reread, 512, time);
    add(RecordKind::resize, 4096, time);
    add(RecordKind::zeroes, 1024, time + 1);
    add(RecordKind::discard, 2048, time + 999'999'999);
    add(RecordKind::secure_erase, 512, 0);
    const auto lost = survey.losses(JournalFormat::v3, JournalFormat::v2);
    CHECK(names(lost, "2 tags"));
    CHECK(names(lost, "4 markers"));
    CHECK(names(lost, "1 rereads"));
    CHECK(names(lost, "1 resizes"));
    CHECK(names(lost, "3 zeroes, discards and secure erases: written out as 3584 bytes"));
    CHECK(names(lost, "a second of 2 times"));
    CHECK(names(lost, "1 times before 2000"));
    CHECK(names(lost, "machine and disk"));
    CHECK(survey.disk_end() == 4096);
    CHECK(names(survey.losses(JournalFormat::v2, JournalFormat::v3), "Vhd2DataWriteGuid"));
}

TEST_CASE("zeroes of many sizes are written out in entries that v2 can hold") {
    std::vector<segments::OwnedRecord> records;
    Record record;
    record.position = 1;
    record.kind = RecordKind::zeroes;
    record.offset = 512;
    record.length = (3u << 20) + 512;
    records.emplace_back(record);
    SegmentHeader header = segments::sample_header(4096);
    header.disk_bytes = 8u << 20;
    const auto back = logs::read_back(to_log(segments::write_segment(header, records).bytes));
    REQUIRE(back.writes.size() == 4);
    uint64_t at = 512;
    for (const auto& write : back.writes) {
        CHECK(write.offset == at);
        CHECK(all_zero(write.data));
        at += write.data.size();
    }
    CHECK(at == 512 + record.length);
}

TEST_CASE("the format of a journal is told by its first bytes") {
    const Bytes log = logs::build_log(logs::sample_writes(1, 3));
    CHECK(open(log)->facts().format == JournalFormat::v2);
    CHECK(open(log)->log() != nullptr);
    CHECK(open(log)->segment() == nullptr);
    CHECK_FALSE(open(log)->facts().disk_bytes);
    const Bytes segment = segments::write_segment(segments::sample_header(4096),
                                                  segments::sample_records(1, 3, 1 << 20))
                              .bytes;
    CHECK(open(segment)->facts().format == JournalFormat::v3);
    CHECK(open(segment)->facts().disk_bytes == 1u << 20);
    for (const Bytes& bytes : {Bytes(), Bytes(7), Bytes(8192)}) {
        auto journal = Journal::open(memory_source(bytes, "other"));
        REQUIRE_FALSE(journal);
        CHECK(journal.error().kind == ErrorKind::corrupt);
    }
}

TEST_CASE("a summary counts entries without a data checksum, and bytes behind the end") {
    const auto writes = logs::sample_writes(1, 10);
    logs::LogShape shape;
    shape.data_checksums = false;
    Bytes log = logs::build_log(writes, shape);
    log.resize(log.size() + 100);
    auto summary = verify_journal(*open(log));
    REQUIRE(summary);
    CHECK(summary->records == 10);
    CHECK(names(summary->notices, "10 of 10 entries have no data checksum"));
    CHECK(names(summary->notices, "100 bytes behind the end"));
    shape.closed = false;
    const Bytes unclosed = logs::build_log(writes, shape);
    auto torn = verify_journal(*open(unclosed));
    REQUIRE_FALSE(torn);
    CHECK(torn.error().kind == ErrorKind::corrupt);
}
