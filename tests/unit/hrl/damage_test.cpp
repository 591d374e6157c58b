// SPDX-License-Identifier: Apache-2.0
// What cutting, flipping, swapping and forging does to a segment: torn_is_refused.
#include "tests/forge_segment.h"
#include "tests/unit/hrl/sample_segments.h"
#include "user/base/digest.h"
#include "user/hrl/journal.h"

using namespace herald;
using namespace herald::hrl;
using namespace herald::hrl::test;

namespace {

std::vector<IndexEntryDisk> blocks_of(ByteView bytes) {
    auto reader = SegmentReader::open(memory_source(bytes, "s"));
    REQUIRE(reader);
    REQUIRE(reader->whole());
    return {reader->blocks().begin(), reader->blocks().end()};
}

uint64_t end_of(const IndexEntryDisk& block) {
    return block.file_offset + block_file_bytes(block.stored_bytes);
}

// Records in all blocks that lie completely before `offset`.
size_t records_before(const std::vector<IndexEntryDisk>& blocks, uint64_t offset) {
    size_t records = 0;
    for (const auto& block : blocks) {
        if (end_of(block) <= offset) records += block.record_count;
    }
    return records;
}

// No temporary per comparison of prefixes: the tests below compare at every byte.
bool is_prefix(const std::vector<OwnedRecord>& part, const std::vector<OwnedRecord>& all) {
    return part.size() <= all.size() && std::equal(part.begin(), part.end(), all.begin());
}

Bytes part_of(ByteView bytes, uint64_t from, uint64_t to) {
    return {bytes.begin() + ptrdiff_t(from), bytes.begin() + ptrdiff_t(to)};
}

void append(Bytes& to, const Bytes& from) { to.insert(to.end(), from.begin(), from.end()); }

// Makes a changed header, block, index and footer pass their own checksums again.
void reseal(Bytes& bytes, uint64_t from, uint64_t checksum_at) {
    store_le(bytes.data() + checksum_at,
             xxh3_64(ByteView(bytes).subspan(from, checksum_at - from)));
}

}  // namespace

TEST_CASE("a segment cut at any byte opens to its last whole block") {
    const auto records = sample_records(seed_from_environment(), 48, 1 << 20, 1, 4);
    const Segment segment = write_segment(sample_header(2048), records);
    const auto blocks = blocks_of(segment.bytes);
    REQUIRE(blocks.size() >= 3);
    for (size_t cut = 0; cut < segment.bytes.size(); ++cut) {
        // A copy of exactly this size, so that a sanitizer sees a read behind the cut.
        const Bytes torn = part_of(segment.bytes, 0, cut);
        const ReadBack back = read_back(torn);
        if (back.opened != (cut >= sizeof(SegmentHeaderDisk)) || back.whole ||
            back.records.size() != records_before(blocks, cut) ||
            !is_prefix(back.records, records) || (back.opened && back.loss.empty()) ||
            (back.opened && !back.error.empty())) {
            FAIL("cut at byte " << cut << ": " << back.records.size() << " records, error '"
                                << back.error << "', loss '" << back.loss << "'");
        }
        auto verified = verify_segment(memory_source(torn, "s"));
        if (verified || verified.error().kind != ErrorKind::corrupt) FAIL("verified at " << cut);
    }
    CHECK(read_back(segment.bytes).records == records);
}

TEST_CASE("every flipped byte is found and nothing of its block or after it is believed") {
    const auto records = sample_records(seed_from_environment(), 32, 1 << 20, 1, 2);
    const Segment segment = write_segment(sample_header(1024), records);
    const auto blocks = blocks_of(segment.bytes);
    REQUIRE(blocks.size() >= 3);
    REQUIRE(segment.bytes.size() < 65536);
    std::mt19937_64 random(seed_from_environment());
    for (size_t at = 0; at < segment.bytes.size(); ++at) {
        Bytes damaged = segment.bytes;
        // One bit at every byte, another one at random, and all eight.
        for (const unsigned flip : {1u << at % 8, 1u << random() % 8, 0xffu}) {
            damaged[at] = segment.bytes[at] ^ std::byte(flip);
            auto verified = verify_segment(memory_source(damaged, "s"));
            if (verified) FAIL("a flip of " << flip << " at byte " << at << " was not found");
            const ReadBack back = read_back(damaged);
            const size_t believed = at < sizeof(SegmentHeaderDisk) ? 0 : records_before(blocks, at);
            if (back.records.size() > believed || !is_prefix(back.records, records) ||
                (back.error.empty() && back.loss.empty())) {
                FAIL("byte " << at << ": " << back.records.size() << " records, error '"
                             << back.error << "', loss '" << back.loss << "'");
            }
        }
    }
}

TEST_CASE("damage in a block is named with its block and byte, and stays an error") {
    const auto records = sample_records(8, 40, 1 << 20, 1, 4);
    Segment segment = write_segment(sample_header(2048), records);
    const auto blocks = blocks_of(segment.bytes);
    segment.bytes[blocks[2].file_offset + 60] ^= std::byte{4};
    auto reader = SegmentReader::open(memory_source(segment.bytes, "damaged.hrl"));
    REQUIRE(reader);
    Result<std::optional<Record>> record = std::optional<Record>();
    do {
        record = reader->next();
    } while (record && *record);
    REQUIRE_FALSE(record);
    const std::string expected =
        "damaged.hrl: block 2 at byte " + std::to_string(blocks[2].file_offset);
    CHECK(record.error().message.find(expected) == 0);
    CHECK(record.error().kind == ErrorKind::corrupt);
    CHECK_FALSE(reader->next());
}

TEST_CASE("swapped, repeated, dropped and foreign blocks are refused by the chain") {
    const auto records = sample_records(9, 40, 1 << 20, 1, 4);
    const Bytes whole = write_segment(sample_header(2048), records).bytes;
    const auto blocks = blocks_of(whole);
    const auto block = [&](const Bytes& from, size_t i) {
        return part_of(from, blocks[i].file_offset, end_of(blocks[i]));
    };
    const auto assemble = [&](std::initializer_list<Bytes> parts, bool with_tail) {
        Bytes bytes = part_of(whole, 0, sizeof(SegmentHeaderDisk));
        for (const Bytes& part : parts) append(bytes, part);
        if (with_tail) append(bytes, part_of(whole, blocks[2].file_offset, whole.size()));
        return bytes;
    };
    // The same records in a segment with another id: all positions and indexes agree.
    SegmentHeader other_header = sample_header(2048);
    other_header.segment = sample_id(0x44);
    const Bytes other = write_segment(other_header, records).bytes;

    for (const bool with_tail : {false, true}) {
        const auto believed = [&](std::initializer_list<Bytes> parts) {
            const Bytes bytes = assemble(parts, with_tail);
            CHECK_FALSE(verify_segment(memory_source(bytes, "s")));
            const ReadBack back = read_back(bytes);
            CHECK(is_prefix(back.records, records));
            return back.records.size();
        };
        CHECK(believed({block(whole, 1), block(whole, 0)}) == 0);
        CHECK(believed({block(whole, 0), block(whole, 0)}) == blocks[0].record_count);
        CHECK(believed({block(whole, 1)}) == 0);
        CHECK(believed({block(other, 0), block(other, 1)}) == 0);
        CHECK(believed({block(whole, 0), block(other, 1)}) == blocks[0].record_count);
    }

    // The header of one segment with everything behind it of another.
    Bytes crossed = part_of(other, 0, sizeof(SegmentHeaderDisk));
    append(crossed, part_of(whole, sizeof(SegmentHeaderDisk), whole.size()));
    CHECK_FALSE(verify_segment(memory_source(crossed, "s")));
    CHECK(read_back(crossed).records.empty());
}

TEST_CASE("bytes behind the footer make a segment not whole") {
    const auto records = sample_records(10, 10, 1 << 20);
    Bytes bytes = write_segment(sample_header(2048), records).bytes;
    bytes.push_back(std::byte{0});
    const ReadBack back = read_back(bytes);
    CHECK_FALSE(back.whole);
    CHECK(back.records == records);
    CHECK_FALSE(verify_segment(memory_source(bytes, "s")));
}

TEST_CASE("an unknown optional feature is read, a required one, version or order refused by name") {
    const auto records = sample_records(11, 10, 1 << 20);
    const Bytes whole = write_segment(sample_header(2048), records).bytes;
    const auto with = [&](size_t at, unsigned value) {
        Bytes bytes = part_of(whole, 0, sizeof(SegmentHeaderDisk));
        bytes[at] = std::byte(value);
        reseal(bytes, 0, offsetof(SegmentHeaderDisk, checksum));
        return read_back(bytes);
    };
    CHECK(with(offsetof(SegmentHeaderDisk, features_optional), 1).opened);
    const ReadBack feature = with(offsetof(SegmentHeaderDisk, features_required), 4);
    CHECK_FALSE(feature.opened);
    CHECK(feature.kind == ErrorKind::operator_needed);
    CHECK(feature.error.find("0x4") != std::string::npos);
    // Layers are known, but no segment is in their order; nor is one sealed by a byte alone.
    CHECK(with(offsetof(SegmentHeaderDisk, features_required), kFeatureSealed).kind ==
          ErrorKind::corrupt);
    CHECK(with(offsetof(SegmentHeaderDisk, version), 4).kind == ErrorKind::operator_needed);
    CHECK(with(offsetof(SegmentHeaderDisk, record_order), 2).kind == ErrorKind::corrupt);
    CHECK(with(offsetof(SegmentHeaderDisk, record_order), 3).kind == ErrorKind::corrupt);
    for (size_t at = offsetof(SegmentHeaderDisk, reserved_a); at < 32; ++at) {
        CHECK_FALSE(with(at, 1).opened);
    }
    for (size_t at = 128; at < 248; ++at) CHECK_FALSE(with(at, 1).opened);
}

TEST_CASE("what an unknown optional feature added is walked over, and must be whole") {
    const auto records = sample_records(16, 20, 1 << 20);
    const Bytes plain = write_segment(sample_header(2048), records).bytes;
    const auto file_with_section = [&](bool feature, auto change) {
        Bytes bytes = plain;
        if (feature) {
            bytes[offsetof(SegmentHeaderDisk, features_optional)] = std::byte{2};
            bytes[offsetof(SegmentHeaderDisk, reserved_b)] = std::byte{7};
        }
        herald::test::forge_segment(bytes);
        const std::string_view content = "what a later version knows";
        const SectionHeaderDisk header{kSectionMagic, 1, content.size()};
        Bytes section(sizeof header + content.size() + kChecksumBytes);
        std::memcpy(section.data(), &header, sizeof header);
        std::memcpy(section.data() + sizeof header, content.data(), content.size());
        reseal(section, 0, section.size() - kChecksumBytes);
        change(section);
        const auto footer_at = bytes.end() - ptrdiff_t(sizeof(FooterDisk));
        bytes.insert(footer_at, section.begin(), section.end());
        const size_t footer = bytes.size() - sizeof(FooterDisk);
        store_le(bytes.data() + footer + offsetof(FooterDisk, file_bytes), uint64_t(bytes.size()));
        reseal(bytes, footer, bytes.size() - kChecksumBytes);
        return bytes;
    };
    const auto with_section = [&](bool feature, auto change) {
        return read_back(file_with_section(feature, change));
    };
    const ReadBack back = with_section(true, [](Bytes&) {});
    CHECK(back.whole);
    CHECK(back.records == records);
    CHECK_FALSE(with_section(false, [](Bytes&) {}).whole);
    for (size_t at = 0; at < 50; ++at) {
        if (with_section(true, [&](Bytes& b) { b[at] ^= std::byte{1}; }).whole) FAIL("byte " << at);
    }
    for (const uint32_t kind : {0u, 2u, 32u, 33u, 0x80000001u}) {
        const auto owned_by = [&](Bytes& b) {
            store_le(b.data() + offsetof(SectionHeaderDisk, kind), kind);
            reseal(b, 0, b.size() - kChecksumBytes);
        };
        if (with_section(true, owned_by).whole) FAIL("a section of feature " << kind);
    }
    CHECK_FALSE(with_section(true, [](Bytes& b) { b.pop_back(); }).whole);
    CHECK_FALSE(with_section(true, [](Bytes& b) { b.push_back(std::byte{0}); }).whole);
    CHECK_FALSE(with_section(true, [](Bytes& b) { b.resize(9 << 20); }).whole);

    // Who copies the file can say what is dropped, and the copy does not claim to have it.
    const Bytes file = file_with_section(true, [](Bytes&) {});
    auto reader = SegmentReader::open(memory_source(file, "s"));
    REQUIRE(reader);
    CHECK(reader->header().features_optional == 2);
    REQUIRE(reader->sections().size() == 1);
    CHECK(reader->sections()[0].kind == 1);
    CHECK(reader->sections()[0].bytes == 26);
    auto journal = Journal::open(memory_source(file, "s"));
    REQUIRE(journal);
    CHECK((*journal)->facts().features_optional == 2);
    const Segment copy = write_segment(reader->header(), records);
    CHECK(copy.header.features_optional == 0);
    CHECK(copy.bytes == plain);
}

TEST_CASE("a block that is sealed well but claims wrong things is refused") {
    const auto records = sample_records(12, 20, 1 << 20, 1, 4);
    const Bytes whole = write_segment(sample_header(2048), records).bytes;
    const auto blocks = blocks_of(whole);
    const uint64_t at = blocks[0].file_offset;
    const auto refused = [&](size_t field, auto value) {
        Bytes bytes = part_of(whole, 0, end_of(blocks[0]));
        store_le(bytes.data() + at + field, value);
        reseal(bytes, at, end_of(blocks[0]) - kChecksumBytes);
        const ReadBack back = read_back(bytes);
        CHECK(back.opened);
        CHECK(back.records.empty());
        CHECK_FALSE(back.loss.empty());
    };
    refused(offsetof(BlockHeaderDisk, raw_bytes), 0xffffffffu);
    refused(offsetof(BlockHeaderDisk, raw_bytes), uint32_t(HERALD_HRL_BLOCK_BYTES_LIMIT + 1));
    refused(offsetof(BlockHeaderDisk, raw_bytes), uint32_t(blocks[0].raw_bytes + 1));
    refused(offsetof(BlockHeaderDisk, raw_bytes), uint32_t(blocks[0].raw_bytes - 1));
    refused(offsetof(BlockHeaderDisk, stored_bytes), 0xffffffffu);
    refused(offsetof(BlockHeaderDisk, record_count), uint32_t(0));
    refused(offsetof(BlockHeaderDisk, record_count), uint32_t(blocks[0].record_count + 1));
    refused(offsetof(BlockHeaderDisk, record_count), uint32_t(blocks[0].record_count - 1));
    refused(offsetof(BlockHeaderDisk, record_count), 0xffffffffu);
    refused(offsetof(BlockHeaderDisk, index), uint32_t(1));
    refused(offsetof(BlockHeaderDisk, first_position), uint64_t(2));
    refused(offsetof(BlockHeaderDisk, codec), uint8_t(2));
    refused(offsetof(BlockHeaderDisk, reserved), uint8_t(1));
    refused(offsetof(BlockHeaderDisk, chain), uint64_t(1));
}

TEST_CASE("a record header that is sealed well but breaks a rule is refused") {
    std::mt19937_64 random(15);
    Record record;
    record.position = 1;
    record.offset = 4096;
    record.length = 512;
    const Bytes data = random_bytes(random, 512);  // does not compress: headers lie in the open
    record.data = data;
    const Bytes whole = write_segment(sample_header(2048), {OwnedRecord(record)}).bytes;
    const uint64_t at = sizeof(SegmentHeaderDisk);
    const uint64_t end = at + block_file_bytes(512 + sizeof(RecordHeaderDisk));
    const uint64_t header_at = end - kChecksumBytes - sizeof(RecordHeaderDisk);
    const auto records_with = [&](size_t field, auto value) {
        Bytes bytes = part_of(whole, 0, end);
        store_le(bytes.data() + header_at + field, value);
        reseal(bytes, at, end - kChecksumBytes);
        return read_back(bytes).records.size();
    };
    CHECK(records_with(offsetof(RecordHeaderDisk, time_ns), uint64_t(5)) == 1);
    CHECK(records_with(offsetof(RecordHeaderDisk, kind), uint8_t(0)) == 0);
    CHECK(records_with(offsetof(RecordHeaderDisk, kind), uint8_t(2)) == 0);
    CHECK(records_with(offsetof(RecordHeaderDisk, kind), uint8_t(12)) == 0);
    CHECK(records_with(offsetof(RecordHeaderDisk, flags), uint8_t(1)) == 0);
    CHECK(records_with(offsetof(RecordHeaderDisk, reserved), uint16_t(0x100)) == 0);
    CHECK(records_with(offsetof(RecordHeaderDisk, data_bytes), uint32_t(511)) == 0);
    CHECK(records_with(offsetof(RecordHeaderDisk, data_bytes), uint32_t(513)) == 0);
    CHECK(records_with(offsetof(RecordHeaderDisk, data_bytes), 0xffffffffu) == 0);
    CHECK(records_with(offsetof(RecordHeaderDisk, position), uint64_t(2)) == 0);
    CHECK(records_with(offsetof(RecordHeaderDisk, offset), uint64_t(4097)) == 0);
    CHECK(records_with(offsetof(RecordHeaderDisk, offset), ~uint64_t(511)) == 0);
    CHECK(records_with(offsetof(RecordHeaderDisk, length), uint64_t(1024)) == 0);
    // Kind and data_bytes lie within the first eight bytes: zeroes that leave the data to nobody.
    CHECK(records_with(0, uint64_t(RecordKind::zeroes)) == 0);
}

TEST_CASE("an index or footer that is sealed well but lies makes the segment not whole") {
    const auto records = sample_records(13, 20, 1 << 20, 1, 4);
    const Bytes whole = write_segment(sample_header(2048), records).bytes;
    const auto blocks = blocks_of(whole);
    const uint64_t footer_at = whole.size() - sizeof(FooterDisk);
    const uint64_t index_at = end_of(blocks.back());
    const auto not_verified = [&](uint64_t at, uint64_t from, uint64_t checksum_at) {
        Bytes bytes = whole;
        bytes[at] ^= std::byte{1};
        reseal(bytes, from, checksum_at);
        if (verify_segment(memory_source(bytes, "s"))) FAIL("a lie at byte " << at);
        CHECK(is_prefix(read_back(bytes).records, records));
    };
    for (uint64_t at = footer_at; at < whole.size() - kChecksumBytes; ++at) {
        not_verified(at, footer_at, whole.size() - kChecksumBytes);
    }
    for (uint64_t at = index_at; at < footer_at - kChecksumBytes; ++at) {
        not_verified(at, index_at, footer_at - kChecksumBytes);
    }
    // A footer that claims more blocks than memory is to be spent on.
    Bytes bytes = whole;
    store_le(bytes.data() + footer_at + offsetof(FooterDisk, block_count), 0xffffffffu);
    reseal(bytes, footer_at, whole.size() - kChecksumBytes);
    CHECK_FALSE(read_back(bytes).whole);
}

TEST_CASE("a last block that the footer does not name is damaged, and nothing of it handed out") {
    const auto records = sample_records(17, 20, 1 << 20, 1, 4);
    Bytes bytes = write_segment(sample_header(2048), records).bytes;
    const auto blocks = blocks_of(bytes);
    REQUIRE(blocks.size() >= 2);
    const uint64_t index_at = end_of(blocks.back());
    const uint64_t footer_at = bytes.size() - sizeof(FooterDisk);
    for (const uint64_t chain :
         {index_at + offsetof(IndexHeaderDisk, chain), footer_at + offsetof(FooterDisk, chain)}) {
        bytes[chain] ^= std::byte{1};
    }
    reseal(bytes, index_at, footer_at - kChecksumBytes);
    reseal(bytes, footer_at, bytes.size() - kChecksumBytes);
    const ReadBack back = read_back(bytes);
    CHECK(back.whole);
    CHECK(back.records.size() == records.size() - blocks.back().record_count);
    CHECK(is_prefix(back.records, records));
    CHECK(back.error.find("the footer names") != std::string::npos);
    // Also when it is gone to, not come to.
    auto reader = SegmentReader::open(memory_source(bytes, "s"));
    REQUIRE(reader);
    REQUIRE(reader->seek(uint32_t(blocks.size() - 1)));
    CHECK_FALSE(reader->next());
}

TEST_CASE("positions end before 2^63, in the writer and in the reader") {
    const uint64_t most = HERALD_POSITION_MAX;
    const auto records = sample_records(18, 3, 1 << 20, most - 2, 2);
    const auto refused = [](auto result) { return result ? "" : result.error().message; };
    SegmentWriter writer(sample_header(1024, most - 2));
    for (const OwnedRecord& record : records) REQUIRE(writer.append(record.view()));
    CHECK(writer.next_position() == most + 1);
    OwnedRecord late = records.back();
    late.record.position = most + 1;
    CHECK(refused(writer.append(late.view())).find("2^63") != std::string::npos);
    auto segment = std::move(writer).finish();
    REQUIRE(segment);
    CHECK(read_back(segment->bytes).records == records);
    CHECK(verify_segment(memory_source(segment->bytes, "s")));
    for (const uint64_t first : {most + 1, UINT64_MAX}) {
        late.record.position = first;
        SegmentWriter behind(sample_header(1024, first));
        CHECK_FALSE(behind.append(late.view()));
        CHECK_FALSE(std::move(behind).finish());
        Bytes bytes = segment->bytes;
        store_le(bytes.data() + offsetof(SegmentHeaderDisk, first_position), first);
        reseal(bytes, 0, offsetof(SegmentHeaderDisk, checksum));
        const ReadBack back = read_back(bytes);
        CHECK_FALSE(back.opened);
        CHECK(back.error.find(std::to_string(first)) != std::string::npos);
    }

    // A layer may cover more than its records, but no more than there is.
    SegmentHeader header = sample_header(1024, most - 2);
    header.contents = Contents::delta_layer;
    for (const uint64_t covered : {most, most + 1, UINT64_MAX}) {
        SegmentWriter layer(header);
        REQUIRE(layer.append(records[0].view()));
        CHECK(std::move(layer).finish(covered).has_value() == (covered == most));
    }
    SegmentWriter layer(header);
    REQUIRE(layer.append(records[0].view()));
    Bytes bytes = std::move(std::move(layer).finish(most)->bytes);
    CHECK(read_back(bytes, {.layers = true}).whole);
    const uint64_t footer_at = bytes.size() - sizeof(FooterDisk);
    store_le(bytes.data() + footer_at + offsetof(FooterDisk, last_position), most + 1);
    reseal(bytes, footer_at, bytes.size() - kChecksumBytes);
    CHECK_FALSE(read_back(bytes, {.layers = true}).whole);
}

TEST_CASE("trouble with reading is not taken for damage") {
    class Sick : public ByteSource {
      public:
        explicit Sick(ByteView bytes) : bytes_(bytes) {}
        uint64_t size() const override { return bytes_.size(); }
        std::string name() const override { return "sick"; }
        Result<void> read(uint64_t offset, ByteSpan to) override {
            if (to.size() == sizeof(BlockHeaderDisk)) return fail_errno(EIO, "read sick");
            std::copy_n(bytes_.begin() + ptrdiff_t(offset), to.size(), to.begin());
            return {};
        }

      private:
        ByteView bytes_;
    };
    const Bytes whole = write_segment(sample_header(2048), sample_records(14, 20, 1 << 20)).bytes;
    for (const size_t size : {whole.size(), whole.size() - 1}) {
        auto reader = SegmentReader::open(std::make_unique<Sick>(ByteView(whole).first(size)));
        REQUIRE(reader);
        auto record = reader->next();
        REQUIRE_FALSE(record);
        CHECK(record.error().kind == ErrorKind::retry);
    }
}
