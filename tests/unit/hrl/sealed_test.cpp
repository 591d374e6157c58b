// SPDX-License-Identifier: Apache-2.0
// Sealed segments: what a key opens, what is seen without it, and that nothing in them can be
// changed, moved or dropped unnoticed, also by somebody who puts every checksum right.
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <set>

#include "tests/forge_segment.h"
#include "tests/nonce_registry.h"
#include "tests/unit/hrl/sample_segments.h"
#include "user/base/digest.h"

using namespace herald;
using namespace herald::hrl;
using namespace herald::hrl::test;
using herald::test::forge_segment;
using herald::test::NonceRegistry;

namespace {

std::atomic<bool> generator_repeats = false;

// While it lives, the kernel's generator gives what it gave before: as in a virtual machine that
// was reverted to a snapshot and whose kernel was not told.
struct GeneratorRepeats {
    GeneratorRepeats() { generator_repeats = true; }
    ~GeneratorRepeats() { generator_repeats = false; }
    GeneratorRepeats(const GeneratorRepeats&) = delete;
    GeneratorRepeats& operator=(const GeneratorRepeats&) = delete;
};

// A machine's key, in a keyring of its own, and the options to read with it.
struct Keys {
    explicit Keys(uint8_t machine = 0x11) : key(seal::MachineKey::create(sample_id(machine))) {
        ring.add(key.copy());
    }
    ReadOptions options() const { return {.keys = &ring}; }
    seal::MachineKey key;
    seal::Keyring ring;
};

struct Place {
    size_t at = 0;
    size_t end = 0;
};

std::vector<Place> places_of(ByteView bytes) {
    auto reader = SegmentReader::open(memory_source(bytes, "s"), {.without_key = true});
    REQUIRE(reader);
    REQUIRE(reader->whole());
    std::vector<Place> places;
    for (const IndexEntryDisk& block : reader->blocks()) {
        places.push_back({size_t(block.file_offset),
                          size_t(block.file_offset + block_file_bytes(block.stored_bytes))});
    }
    return places;
}

size_t records_before(ByteView whole, uint64_t offset) {
    auto reader = SegmentReader::open(memory_source(whole, "s"), {.without_key = true});
    REQUIRE(reader);
    size_t records = 0;
    for (const IndexEntryDisk& block : reader->blocks()) {
        if (block.file_offset + block_file_bytes(block.stored_bytes) <= offset) {
            records += block.record_count;
        }
    }
    return records;
}

bool is_prefix(const std::vector<OwnedRecord>& part, const std::vector<OwnedRecord>& all) {
    return part.size() <= all.size() && std::equal(part.begin(), part.end(), all.begin());
}

Bytes part_of(ByteView bytes, size_t from, size_t to) {
    return {bytes.begin() + ptrdiff_t(from), bytes.begin() + ptrdiff_t(to)};
}

Bytes joined(std::initializer_list<Bytes> parts) {
    Bytes all;
    for (const Bytes& part : parts) all.insert(all.end(), part.begin(), part.end());
    return all;
}

// Block `from` of `bytes`, relabelled as a forger would so that it looks like block `index`.
Bytes block_as(ByteView bytes, size_t from, uint32_t index, uint64_t first_position,
               const SegmentHeaderDisk* file = nullptr) {
    const Place place = places_of(bytes)[from];
    Bytes block = part_of(bytes, place.at, place.end);
    store_le(block.data() + offsetof(BlockHeaderDisk, index), index);
    store_le(block.data() + offsetof(BlockHeaderDisk, first_position), first_position);
    std::byte* const sealed = block.data() + sizeof(BlockHeaderDisk);
    store_le(sealed + offsetof(SealHeaderDisk, index), index);
    if (file) {
        std::memcpy(sealed, file->segment.data(), 16);
        std::memcpy(sealed + 16, file->seal.data(), 16);
    }
    return block;
}

}  // namespace

// In the place of the C library's, for this whole program.
extern "C" ssize_t getrandom(void* to, size_t size, unsigned flags) {
    if (!generator_repeats) return ::syscall(SYS_getrandom, to, size, flags);
    std::memset(to, 0x5e, size);
    return ssize_t(size);
}

TEST_CASE("a sealed segment gives back its records with the key") {
    const uint64_t seed = seed_from_environment();
    INFO("HERALD_SEED=" << seed);
    const Keys keys;
    NonceRegistry registry;
    for (size_t round = 0; round < 20 * tier_scale(); ++round) {
        std::mt19937_64 random(seed + round);
        const uint64_t first = 1 + random() % 1000;
        const SegmentHeader header = sample_header(uint32_t(512 << random() % 10), first);
        const auto records = sample_records(seed + round, 1 + random() % 300, 1 << 20, first, 64);
        const Segment segment = write_sealed(header, records, keys.key);
        CHECK(segment.file_bytes == segment.bytes.size());
        CHECK(segment.header.key_id == keys.key.id);
        const ReadBack back = read_back(segment.bytes, keys.options());
        CHECK(back.error == "");
        CHECK(back.loss == "");
        CHECK(back.whole);
        CHECK(back.records == records);
        auto summary = verify_segment(memory_source(segment.bytes, "s"), nullptr, keys.options());
        REQUIRE(summary);
        CHECK(summary->header == segment.header);
        CHECK(summary->raw_bytes == segment.raw_bytes);
    }
    CHECK(registry.keys() == 20 * tier_scale());
}

TEST_CASE("without the key all but the data of writes is read, when that is asked for") {
    const Keys keys;
    const auto records = sample_records(30, 100, 1 << 20, 1, 4);
    Segment segment = write_sealed(sample_header(2048), records, keys.key);
    const ReadBack locked = read_back(segment.bytes);
    CHECK_FALSE(locked.opened);
    CHECK(locked.kind == ErrorKind::operator_needed);
    CHECK(locked.error.find(to_string(keys.key.id)) != std::string::npos);

    const ReadOptions blind{.without_key = true};
    CHECK(verify_segment(memory_source(segment.bytes, "s"), nullptr, blind));
    const ReadBack back = read_back(segment.bytes, blind);
    CHECK(back.error == "");
    REQUIRE(back.records.size() == records.size());
    for (size_t i = 0; i < records.size(); ++i) {
        OwnedRecord expected = records[i];
        const bool is_write = expected.record.kind == RecordKind::write;
        if (is_write) expected.data.clear();
        CHECK(back.records[i] == expected);
        CHECK(back.records[i].record.data_is_sealed == is_write);
        CHECK(validate(back.records[i].view()).has_value() == !is_write);
    }
    // It verifies checksums all the same.
    for (size_t at = 0; at < segment.bytes.size(); ++at) {
        segment.bytes[at] ^= std::byte{1};
        if (verify_segment(memory_source(segment.bytes, "s"), nullptr, blind)) FAIL("byte " << at);
        segment.bytes[at] ^= std::byte{1};
    }
}

TEST_CASE("a sealed file holds no data in the clear") {
    const Keys keys;
    const std::string marker = "a marker that nobody may read at rest";
    Record record;
    record.position = 1;
    record.length = 512;
    Bytes data(512);
    std::copy_n(as_bytes(marker).begin(), marker.size(), data.begin());
    record.data = data;
    const auto holds = [&](const Segment& segment) {
        return as_text(segment.bytes).find(marker) != std::string::npos;
    };
    CHECK(holds(write_segment(sample_header(2048), {OwnedRecord(record)})));
    CHECK_FALSE(holds(write_sealed(sample_header(2048), {OwnedRecord(record)}, keys.key)));
}

TEST_CASE("a wrong key is named, a plain file refused where only sealed ones are read") {
    const Keys keys;
    const auto records = sample_records(31, 20, 1 << 20);
    const Segment segment = write_sealed(sample_header(2048), records, keys.key);
    // Another key under the same id: no key says so of itself, the header does.
    seal::MachineKey other = keys.key.copy();
    other.key.span()[0] ^= std::byte{1};
    seal::Keyring wrong;
    wrong.add(std::move(other));
    const ReadBack refused = read_back(segment.bytes, {.keys = &wrong});
    CHECK_FALSE(refused.opened);
    CHECK(refused.kind == ErrorKind::corrupt);
    CHECK(refused.error.find("sealed by another key than " + to_string(keys.key.id)) !=
          std::string::npos);
    const Keys stranger;
    const ReadBack missing = read_back(segment.bytes, stranger.options());
    CHECK(missing.kind == ErrorKind::operator_needed);
    CHECK(missing.error.find(to_string(keys.key.id)) != std::string::npos);

    const Segment plain = write_segment(sample_header(2048), records);
    ReadOptions options = keys.options();
    CHECK(read_back(plain.bytes, options).opened);
    options.sealed_only = true;
    CHECK_FALSE(read_back(plain.bytes, options).opened);
    CHECK(read_back(segment.bytes, options).opened);

    SegmentHeader header = sample_header(2048);
    header.machine = sample_id(0x99);
    SegmentWriter writer(header, {SealedBy::source, &keys.key});
    CHECK_FALSE(writer.append(records[0].view()));
}

TEST_CASE("a sealed segment cut at any byte opens to its last whole block") {
    const Keys keys;
    const auto records = sample_records(seed_from_environment(), 24, 1 << 20, 1, 2);
    const Segment segment = write_sealed(sample_header(1024), records, keys.key);
    REQUIRE(places_of(segment.bytes).size() >= 3);
    for (size_t cut = 0; cut < segment.bytes.size(); ++cut) {
        const Bytes torn = part_of(segment.bytes, 0, cut);
        const ReadBack back = read_back(torn, keys.options());
        if (back.opened != (cut >= sizeof(SegmentHeaderDisk)) || back.whole ||
            back.records.size() != records_before(segment.bytes, cut) ||
            !is_prefix(back.records, records) || (back.opened && back.loss.empty())) {
            FAIL("cut at byte " << cut << ": " << back.records.size() << " records, error '"
                                << back.error << "', loss '" << back.loss << "'");
        }
    }
}

TEST_CASE("every changed byte of a sealed segment is found, also when all checksums are forged") {
    const Keys keys;
    const auto records = sample_records(seed_from_environment(), 24, 1 << 20, 1, 2);
    const Segment segment = write_sealed(sample_header(1024), records, keys.key);
    for (const bool forged : {false, true}) {
        size_t harmless = 0;
        for (size_t at = 0; at < segment.bytes.size(); ++at) {
            for (const unsigned flip : {1u << at % 8, 0xffu}) {
                Bytes damaged = segment.bytes;
                damaged[at] ^= std::byte(flip);
                if (forged) forge_segment(damaged);
                if (damaged == segment.bytes) {
                    ++harmless;  // a checksum that the forger put right again
                    continue;
                }
                if (verify_segment(memory_source(damaged, "s"), nullptr, keys.options())) {
                    FAIL("a flip of " << flip << " at byte " << at << ", forged: " << forged);
                }
                const ReadBack back = read_back(damaged, keys.options());
                if (back.records.size() > records_before(segment.bytes, at) ||
                    !is_prefix(back.records, records)) {
                    FAIL("byte " << at << ", forged: " << forged << ": " << back.records.size()
                                 << " records believed");
                }
            }
        }
        CHECK((harmless != 0) == forged);
    }
}

TEST_CASE("forged: swapped, moved, repeated, dropped and foreign blocks are refused by name") {
    const Keys keys;
    // Blocks of the same size and shape, so that nothing but the seal tells them apart.
    std::mt19937_64 random(40);
    const auto stream = [&](uint64_t first) {
        std::vector<OwnedRecord> records;
        for (uint64_t i = 0; i < 4; ++i) {
            Record record;
            record.position = first + i;
            record.offset = 4096 * i;
            record.length = 1024;
            const Bytes data = random_bytes(random, 1024);
            record.data = data;
            records.emplace_back(record);
        }
        return records;
    };
    const auto records = stream(1);
    const SegmentHeader header = sample_header(1024);
    const Segment whole = write_sealed(header, records, keys.key);
    const auto header_disk = load_disk<SegmentHeaderDisk>(whole.bytes.data());
    const auto places = places_of(whole.bytes);
    REQUIRE(places.size() == 4);
    const Bytes front = part_of(whole.bytes, 0, places[0].at);
    const Bytes tail = part_of(whole.bytes, places[3].end, whole.bytes.size());
    const auto original = [&](size_t i) {
        return part_of(whole.bytes, places[i].at, places[i].end);
    };

    const auto believed = [&](const Bytes& second) {
        Bytes bytes = joined({front, original(0), second, original(2), original(3), tail});
        forge_segment(bytes);
        const ReadBack back = read_back(bytes, keys.options());
        CHECK(back.opened);
        CHECK(is_prefix(back.records, records));
        CHECK((back.error + back.loss).find("authentic") != std::string::npos);
        CHECK_FALSE(verify_segment(memory_source(bytes, "s"), nullptr, keys.options()));
        return back.records.size();
    };
    SECTION("another block of the file in its place") {
        CHECK(believed(block_as(whole.bytes, 2, 1, 2)) == 1);
        CHECK(believed(block_as(whole.bytes, 0, 1, 2)) == 1);
    }
    SECTION("the same place of another segment, disk, machine, key or earlier sealing") {
        const auto other = [&](auto change) {
            SegmentHeader changed = header;
            Keys other_keys(0x11);
            bool with_own_key = true;
            change(changed, with_own_key);
            const seal::MachineKey* key = with_own_key ? &keys.key : &other_keys.key;
            seal::MachineKey moved = key->copy();
            moved.machine = changed.machine;
            const Segment from = write_sealed(changed, records, moved);
            return believed(block_as(from.bytes, 1, 1, 2, &header_disk));
        };
        CHECK(other([](SegmentHeader& h, bool&) { h.segment = sample_id(0x44); }) == 1);
        CHECK(other([](SegmentHeader& h, bool&) { h.disk = sample_id(0x44); }) == 1);
        CHECK(other([](SegmentHeader& h, bool&) { h.machine = sample_id(0x44); }) == 1);
        CHECK(other([](SegmentHeader&, bool& own) { own = false; }) == 1);
        CHECK(other([](SegmentHeader&, bool&) {}) == 1);  // rolled back to an earlier sealing
    }
    SECTION("the last block dropped, index and footer cut to fit") {
        Bytes bytes = joined({front, original(0), original(1), original(2)});
        Bytes index = part_of(tail, 0, sizeof(IndexHeaderDisk) + 3 * sizeof(IndexEntryDisk));
        store_le(index.data() + offsetof(IndexHeaderDisk, entry_count), uint32_t{3});
        auto footer = load_disk<FooterDisk>(tail.data() + tail.size() - sizeof(FooterDisk));
        footer.block_count = 3;
        footer.record_count = 3;
        footer.last_position = 3;
        footer.raw_bytes = footer.raw_bytes / 4 * 3;
        const ByteView footer_bytes = disk_bytes_of(footer);
        bytes =
            joined({bytes, index, Bytes(kChecksumBytes),
                    part_of(tail, tail.size() - sizeof footer - 24, tail.size() - sizeof footer),
                    Bytes(footer_bytes.begin(), footer_bytes.end())});
        forge_segment(bytes);
        // Without the key nobody can tell; with it the file is torn, and never whole.
        CHECK(read_back(bytes, {.without_key = true}).whole);
        const ReadBack back = read_back(bytes, keys.options());
        CHECK_FALSE(back.whole);
        CHECK(back.loss.find("index and footer are not authentic") != std::string::npos);
        CHECK(back.records.size() == 3);
        CHECK_FALSE(verify_segment(memory_source(bytes, "s"), nullptr, keys.options()));
    }
    SECTION("a header that claims something else") {
        for (size_t at = 12; at < 248; ++at) {
            Bytes bytes = whole.bytes;
            bytes[at] ^= std::byte{1};
            forge_segment(bytes);
            const ReadBack back = read_back(bytes, keys.options());
            if (back.opened) FAIL("header byte " << at);
        }
        Bytes bytes = whole.bytes;
        bytes[offsetof(SegmentHeaderDisk, disk)] ^= std::byte{1};
        forge_segment(bytes);
        CHECK(
            read_back(bytes, keys.options()).error.find("header at byte 0: it is not authentic") !=
            std::string::npos);
    }
}

TEST_CASE("no nonce meets a key twice across crash, retry and revert") {
    const uint64_t seed = seed_from_environment();
    INFO("HERALD_SEED=" << seed);
    std::mt19937_64 random(seed);
    const Keys keys;
    NonceRegistry registry;
    size_t sealed = 0;
    // One segment id for all: as a retry that repeats it, and as a machine reverted to before it.
    for (size_t round = 0; round < 100 * tier_scale(); ++round) {
        const auto records = sample_records(random(), 1 + random() % 40, 1 << 20, 1, 4);
        SegmentWriter writer(sample_header(1024), {SealedBy::source, &keys.key});
        const size_t crash_at = random() % (2 * records.size());
        for (size_t i = 0; i < records.size() && i < crash_at; ++i) {
            REQUIRE(writer.append(records[i].view()));
        }
        if (crash_at < records.size()) continue;
        auto segment = std::move(writer).finish();
        REQUIRE(segment);
        CHECK(read_back(segment->bytes, keys.options()).records == records);
        ++sealed;
    }
    CHECK(sealed != 0);
    CHECK(registry.keys() == 100 * tier_scale());
    CHECK(registry.pairs() > 200 * tier_scale());
}

TEST_CASE("a revert that repeats the random generator meets no key twice: the clocks are in it") {
    const Keys keys;
    const auto records = sample_records(seed_from_environment(), 5, 1 << 20, 1, 2);
    NonceRegistry registry;
    std::set<Uuid> ids;
    std::set<Uuid> seals;
    const size_t reverts = 100 * tier_scale();
    for (size_t round = 0; round < reverts; ++round) {
        const GeneratorRepeats revert;
        // An id that is nothing but random comes again.
        ids.insert(Uuid::random());
        SegmentWriter writer(sample_header(1024), {SealedBy::source, &keys.key});
        for (const OwnedRecord& record : records) REQUIRE(writer.append(record.view()));
        auto segment = std::move(writer).finish();
        REQUIRE(segment);
        seals.insert(segment->header.seal);
    }
    CHECK(ids.size() == 1);
    CHECK(seals.size() == reverts);
    CHECK(registry.keys() == reverts);
}

TEST_CASE("rotation rewrites no data, and deleting a machine's key takes that machine only") {
    const auto root_of = [](const seal::RootKeyFile& file) {
        auto root = seal::open_root_key(file, "root", nullptr);
        REQUIRE(root);
        return std::move(*root);
    };
    auto old_root = root_of(seal::new_root_key());
    auto new_root = root_of(seal::new_root_key());
    const auto records = sample_records(50, 40, 1 << 20);
    std::vector<Segment> segments;
    std::vector<seal::WrappedKey> wrapped;
    for (const uint8_t machine : {0x11, 0x12}) {
        SegmentHeader header = sample_header(2048);
        header.machine = sample_id(machine);
        const Keys keys(machine);
        segments.push_back(write_sealed(header, records, keys.key));
        auto object = seal::wrap_machine_key(keys.key, *old_root);
        REQUIRE(object);
        wrapped.push_back(*object);
    }
    for (seal::WrappedKey& object : wrapped) {
        auto again = seal::rewrap_machine_key(object, *old_root, *new_root);
        REQUIRE(again);
        object = *again;
    }
    old_root.reset();
    const auto ring_of = [&](std::span<const seal::WrappedKey> objects) {
        seal::Keyring ring;
        for (const seal::WrappedKey& object : objects) {
            auto key = seal::unwrap_machine_key(object, *new_root);
            REQUIRE(key);
            ring.add(std::move(*key));
        }
        return ring;
    };
    const seal::Keyring both = ring_of(wrapped);
    for (const Segment& segment : segments) {
        CHECK(read_back(segment.bytes, {.keys = &both}).records == records);
    }
    const seal::Keyring left = ring_of(std::span(wrapped).last(1));
    CHECK_FALSE(read_back(segments[0].bytes, {.keys = &left}).opened);
    CHECK(read_back(segments[1].bytes, {.keys = &left}).records == records);
}
