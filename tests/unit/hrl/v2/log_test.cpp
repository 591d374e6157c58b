// SPDX-License-Identifier: Apache-2.0
// Replica logs: the known answers, both orders, what the writer writes.
#include "tests/unit/hrl/v2/sample_logs.h"

#include "herald/limits.h"

using namespace herald;
using namespace herald::hrl;
using namespace herald::hrl::v2;
using namespace herald::hrl::v2::test;

namespace {

struct Known {
    size_t number;  // of the entry, counted from 1
    Entry entry;
    uint32_t checksum;
};

// Of the published example of a log; its data is not published.
constexpr uint32_t kSecond = 539'842'381;
const Known kKnown[] = {
    {1, {3'626'348'544, 4096, kSecond, 0}, 4'294'966'608},
    {2, {8'026'886'144, 4096, kSecond, 0}, 4'294'966'558},
    {3, {3'699'798'016, 4096, kSecond, 0}, 4'294'966'571},
    {6, {139'466'752, 2048, kSecond, 0}, 4'294'966'933},
    {16, {3'699'957'760, 12'288, kSecond, 0}, 4'294'966'425},
    {23, {135'266'304, 1024, kSecond + 1, 0}, 4'294'967'024},
    {28, {3'774'267'392, 16'384, kSecond + 1, 0}, 4'294'966'326},
    {40, {3'673'733'120, 31'232, kSecond + 1, 0}, 4'294'966'280},
    {51, {10'188'185'600, 4096, kSecond + 1, 0}, 4'294'966'776},
    {58, {3'626'340'352, 4096, kSecond + 1, 0}, 4'294'966'639},
};

constexpr uint64_t kSecondBlock = 328'192;
constexpr uint64_t kEnd = 332'288;

// The published file's frame and known entries; the entries that are not known are made up so
// that the data ends where it did.
Bytes published_log() {
    std::vector<Entry> entries(58);
    uint64_t left = kSecondBlock - 8192;
    for (const Known& known : kKnown) {
        entries[known.number - 1] = known.entry;
        left -= known.entry.data_bytes;
    }
    size_t unknown = entries.size() - std::size(kKnown);
    for (size_t i = 0; i < entries.size(); ++i) {
        if (entries[i].data_bytes != 0) continue;
        entries[i] = {i * 65'536, uint32_t(--unknown == 0 ? left : 4608),
                      kSecond + uint32_t(i >= 22), 0};
        left -= entries[i].data_bytes;
    }
    REQUIRE(left == 0);
    LogHeader header;
    header.time = 539'842'380;
    header.current_bytes = kEnd;
    header.end_offset = kEnd;
    header.entry_count = 58;
    header.id = log_id(1);
    Bytes bytes(kEnd);
    const LogHeaderDisk disk = encode_header(header);
    std::memcpy(bytes.data(), &disk, sizeof disk);
    const Bytes first = encode_metadata(0, {}, EntryOrder::newest_first, 4096);
    const Bytes second = encode_metadata(324'096, entries, EntryOrder::newest_first, 4096);
    std::copy(first.begin(), first.end(), bytes.begin() + 4096);
    std::copy(second.begin(), second.end(), bytes.begin() + ptrdiff_t(kSecondBlock));
    return bytes;
}

uint32_t metadata_checksum(const Bytes& bytes, uint64_t block) {
    return load_le<uint32_t>(bytes.data() + block + offsetof(MetadataHeaderDisk, checksum));
}

}  // namespace

TEST_CASE("the published log's checksums are what this code computes") {
    const Bytes bytes = published_log();
    CHECK(metadata_checksum(bytes, 4096) == 4'294'967'295);
    CHECK(metadata_checksum(bytes, kSecondBlock) == 4'294'966'991);
    for (const Known& known : kKnown) {
        // The oldest entry is in the last of 127 slots.
        const uint64_t slot = kSecondBlock + 32 + (127 - known.number) * 32;
        CHECK(load_le<uint32_t>(bytes.data() + slot + offsetof(EntryDisk, checksum)) ==
              known.checksum);
    }
}

TEST_CASE("the published log is read: 58 entries from byte 8192 to 328192, oldest first") {
    const Bytes bytes = published_log();
    auto reader = LogReader::open(memory_source(bytes, "published.hrl"));
    REQUIRE(reader);
    CHECK(reader->whole());
    CHECK(reader->block_count() == 2);
    CHECK(reader->entry_count() == 58);
    CHECK(reader->entry_order() == EntryOrder::newest_first);
    uint64_t data_bytes = 0;
    size_t known = 0;
    for (size_t number = 1;; ++number) {
        auto record = reader->next();
        REQUIRE(record);
        if (!*record) break;
        CHECK((*record)->data.data() == bytes.data() + 8192 + data_bytes);
        data_bytes += (*record)->length;
        if (known == std::size(kKnown) || kKnown[known].number != number) continue;
        CHECK((*record)->offset == kKnown[known].entry.byte_offset);
        CHECK((*record)->length == kKnown[known].entry.data_bytes);
        CHECK((*record)->time_ns / 1'000'000'000 == 946'684'800ull + kKnown[known].entry.time);
        ++known;
    }
    CHECK(known == std::size(kKnown));
    CHECK(data_bytes == kSecondBlock - 8192);
    CHECK(reader->entries_unchecked() == 58);
}

TEST_CASE("a log's bytes lie where the format says") {
    LogHeader header;
    header.time = 0x01020304;
    header.creator_application = {'c', 't', ' ', ' '};
    header.creator_version = 0x000a0000;
    header.end_offset = 0x1122334455667788;
    header.id = *Uuid::parse("00112233-4455-6677-8899-aabbccddeeff");
    header.data_write_id = log_id(7);
    header.entry_count = 9;
    const LogHeaderDisk disk = encode_header(header);
    const auto* bytes = reinterpret_cast<const std::byte*>(&disk);
    CHECK(as_text({bytes, 8}) == "msctlog ");
    CHECK(load_le<uint32_t>(bytes + 8) == 0x00020000);
    CHECK(load_le<uint32_t>(bytes + 12) == 0x01020304);
    CHECK(load_le<uint64_t>(bytes + 44) == 0x1122334455667788);
    // As Windows stores the id that it prints like this.
    CHECK(load_le<uint32_t>(bytes + 60) == 0x00112233);
    CHECK(load_le<uint16_t>(bytes + 64) == 0x4455);
    CHECK(bytes[68] == std::byte{0x88});
    CHECK(load_le<uint64_t>(bytes + 96) == 9);
    CHECK(bytes[110] == std::byte{7});
    auto back = decode_header(disk);
    REQUIRE(back);
    CHECK(*back == header);
}

TEST_CASE("what is written is read back, in both orders, versions and sizes of blocks") {
    const uint64_t seed = seed_from_environment();
    INFO("HERALD_SEED=" << seed);
    const std::vector<Write> writes = sample_writes(seed, 200);
    for (const uint32_t version : {kVersion1, kVersion2}) {
        for (const EntryOrder order : {EntryOrder::oldest_first, EntryOrder::newest_first}) {
            for (const uint32_t metadata_bytes : {512u, 4096u, 65'536u}) {
                for (const bool leading : {false, true}) {
                    LogShape shape;
                    shape.version = version;
                    shape.order = order;
                    shape.metadata_bytes = metadata_bytes;
                    shape.entries_per_block = entry_slots(metadata_bytes) - 1;
                    shape.leading_block = leading;
                    const ReadBack back = read_back(build_log(writes, shape));
                    CHECK(back.error == "");
                    CHECK(back.whole);
                    CHECK(back.writes == writes);
                }
            }
        }
    }
}

TEST_CASE("the writer's log opens to its writes, closed, and to its whole blocks before that") {
    const std::vector<Write> writes = sample_writes(5, 300);
    Bytes bytes;
    auto sink = memory_sink(bytes);
    LogHeader header;
    header.time = kLeapDay;
    header.id = log_id(3);
    auto writer = LogWriter::open(*sink, header);
    REQUIRE(writer);
    for (size_t i = 0; i < writes.size(); ++i) {
        const ReadBack open = read_back(bytes);
        CHECK_FALSE(open.whole);
        CHECK(open.writes.size() == i / 126 * 126);
        CHECK(is_prefix(open.writes, writes));
        CHECK(open.loss.find("was not closed") != std::string::npos);
        REQUIRE(writer->append(writes[i].offset, writes[i].data, writes[i].time));
    }
    auto closed = writer->finish();
    REQUIRE(closed);
    CHECK(closed->entry_count == 300);
    CHECK(closed->end_offset == bytes.size());
    const ReadBack back = read_back(bytes);
    CHECK(back.whole);
    CHECK(back.loss == "");
    CHECK(back.writes == writes);
}

TEST_CASE("the writer refuses what no entry can hold") {
    Bytes bytes;
    auto sink = memory_sink(bytes);
    auto writer = LogWriter::open(*sink, {});
    REQUIRE(writer);
    const Bytes sector(512);
    CHECK_FALSE(writer->append(1, sector, 0));
    CHECK_FALSE(writer->append(0, ByteView(sector).first(511), 0));
    CHECK_FALSE(writer->append(0, {}, 0));
    CHECK_FALSE(writer->append(HERALD_DISK_BYTES_MAX, sector, 0));
    CHECK_FALSE(writer->append(0, Bytes(HERALD_RECORD_DATA_BYTES_MAX + 512), 0));
    CHECK(writer->append(HERALD_DISK_BYTES_MAX - 512, sector, 0));
    LogHeader header;
    header.metadata_bytes = 513;
    Bytes other;
    auto other_sink = memory_sink(other);
    CHECK_FALSE(LogWriter::open(*other_sink, header));
}

TEST_CASE("an entry of more than a record is handed out in pieces") {
    std::mt19937_64 random(1);
    const std::vector<Write> writes{{512, noise(random, (2u << 20) + 512), kLeapDay}};
    const ReadBack back = read_back(build_log(writes));
    REQUIRE(back.writes.size() == 3);
    Bytes joined;
    uint64_t offset = 512;
    for (const Write& piece : back.writes) {
        CHECK(piece.offset == offset);
        offset += piece.data.size();
        joined.insert(joined.end(), piece.data.begin(), piece.data.end());
    }
    CHECK(joined == writes[0].data);
}

TEST_CASE("the order of full blocks is told by data, by times, by another block, or by the user") {
    for (const EntryOrder order : {EntryOrder::oldest_first, EntryOrder::newest_first}) {
        const EntryOrder other =
            order == EntryOrder::oldest_first ? EntryOrder::newest_first : EntryOrder::oldest_first;
        std::vector<Write> writes = sample_writes(3, 30);
        for (Write& write : writes) write.time = kLeapDay;
        LogShape shape;
        shape.order = order;
        shape.entries_per_block = 15;                                 // every slot
        CHECK(read_back(build_log(writes, shape)).writes == writes);  // the data's checksums

        shape.data_checksums = false;
        const ReadBack unproven = read_back(build_log(writes, shape));
        CHECK(unproven.writes.empty());
        CHECK(unproven.kind == ErrorKind::operator_needed);
        CHECK(unproven.error.find("--entry-order") != std::string::npos);
        CHECK(read_back(build_log(writes, shape), order).writes == writes);
        CHECK(read_back(build_log(writes, shape), other).writes != writes);

        std::vector<Write> more = writes;  // a third block that is not full
        more.push_back(writes[0]);
        CHECK(read_back(build_log(more, shape)).writes == more);
        // What the log proves is not overruled.
        CHECK(read_back(build_log(more, shape), other).writes == more);

        std::vector<Write> timed = writes;
        for (size_t i = 0; i < timed.size(); ++i) timed[i].time += uint32_t(i);
        CHECK(read_back(build_log(timed, shape)).writes == timed);
    }
}

TEST_CASE("a reader refuses versions, operations and locations it does not know, by number") {
    const std::vector<Write> writes = sample_writes(1, 3);
    LogShape shape;
    shape.version = 0x00030000;
    const ReadBack newer = read_back(build_log(writes, shape));
    CHECK_FALSE(newer.opened);
    CHECK(newer.kind == ErrorKind::operator_needed);
    CHECK(newer.error.find("0x00030000") != std::string::npos);

    const Bytes good = build_log(writes);
    const size_t slot = good.size() - sizeof(EntryDisk);  // of the oldest entry
    const auto forge = [&](size_t field, uint8_t value) {
        Bytes bytes = good;
        bytes[slot + field] = std::byte{value};
        const uint32_t checksum =
            checksum_around(ByteView(bytes).subspan(slot, sizeof(EntryDisk)), 8);
        store_le(bytes.data() + slot + 8, checksum);
        return read_back(bytes);
    };
    const ReadBack operation = forge(offsetof(EntryDisk, operation), 2);
    CHECK(operation.writes.empty());
    CHECK(operation.kind == ErrorKind::operator_needed);
    CHECK(operation.error.find("operation 2") != std::string::npos);
    const ReadBack location = forge(offsetof(EntryDisk, location), 1);
    CHECK(location.writes.empty());
    CHECK(location.kind == ErrorKind::operator_needed);
}

TEST_CASE("times outside the format's seconds are held at its ends") {
    CHECK(time_of(0) == 0);
    CHECK(time_of(946'684'800'999'999'999) == 0);
    CHECK(time_of(946'684'801'000'000'000) == 1);
    CHECK(time_of(UINT64_MAX) == UINT32_MAX);
    CHECK(time_of(time_ns_of(kLeapDay)) == kLeapDay);
    CHECK(time_ns_of(kLeapDay) == 1'709'208'000'000'000'000);
}
