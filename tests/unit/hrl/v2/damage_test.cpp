// SPDX-License-Identifier: Apache-2.0
// Replica logs that were cut, changed, never closed, or made to mislead.
#include "tests/unit/hrl/v2/sample_logs.h"

using namespace herald;
using namespace herald::hrl;
using namespace herald::hrl::v2;
using namespace herald::hrl::v2::test;

namespace {

// What lies at each byte of a log as build_log() makes it.
enum class Part { header, metadata_header, entry, unused_slot, data };

std::vector<Part> parts_of(const std::vector<Write>& writes, const LogShape& shape) {
    std::vector<Part> parts(kHeaderBytes, Part::header);
    size_t entries = 0;
    const auto block = [&] {
        const size_t slots = entry_slots(shape.metadata_bytes);
        parts.insert(parts.end(), sizeof(MetadataHeaderDisk), Part::metadata_header);
        for (size_t slot = 0; slot < slots; ++slot) {
            const bool used = shape.order == EntryOrder::oldest_first ? slot < entries
                                                                      : slots - 1 - slot < entries;
            parts.insert(parts.end(), sizeof(EntryDisk), used ? Part::entry : Part::unused_slot);
        }
        entries = 0;
    };
    if (shape.leading_block) block();
    for (const Write& write : writes) {
        parts.insert(parts.end(), write.data.size(), Part::data);
        if (++entries == shape.entries_per_block) block();
    }
    if (entries != 0) block();
    return parts;
}

size_t writes_before(const std::vector<Write>& writes, const LogShape& shape, size_t byte) {
    // Whole blocks that end at or before `byte`, as a count of their writes.
    size_t at = kHeaderBytes + (shape.leading_block ? shape.metadata_bytes : 0);
    size_t whole = 0;
    size_t entries = 0;
    for (size_t i = 0; i < writes.size(); ++i) {
        at += writes[i].data.size();
        if (++entries == shape.entries_per_block || i + 1 == writes.size()) {
            at += shape.metadata_bytes;
            entries = 0;
            if (at <= byte) whole = i + 1;
        }
    }
    return whole;
}

LogShape small_shape(EntryOrder order, bool closed) {
    LogShape shape;
    shape.order = order;
    shape.entries_per_block = 3;
    shape.closed = closed;
    return shape;
}

}  // namespace

TEST_CASE("a log cut at any byte gives the writes of its whole blocks, closed or not") {
    const std::vector<Write> writes = sample_writes(seed_from_environment(), 8, 1 << 20, 2);
    for (const EntryOrder order : {EntryOrder::oldest_first, EntryOrder::newest_first}) {
        for (const bool closed : {true, false}) {
            const LogShape shape = small_shape(order, closed);
            const Bytes bytes = build_log(writes, shape);
            for (size_t cut = 0; cut < bytes.size(); ++cut) {
                const ReadBack back = read_back(ByteView(bytes).first(cut));
                INFO("HERALD_SEED=" << seed_from_environment() << " cut at " << cut);
                if (back.opened != (cut >= kHeaderBytes)) FAIL(back.error);
                if (!back.opened) {
                    if (back.kind != ErrorKind::corrupt) FAIL(back.error);
                    continue;
                }
                if (back.whole || back.loss.empty() || !back.error.empty()) FAIL(back.loss);
                if (back.writes.size() != writes_before(writes, shape, cut)) FAIL(back.loss);
                if (!is_prefix(back.writes, writes)) FAIL("other writes");
            }
        }
    }
}

TEST_CASE("every changed byte that a checksum covers is found; after it nothing is believed") {
    const std::vector<Write> writes = sample_writes(seed_from_environment(), 8, 1 << 20, 2);
    std::mt19937_64 random(seed_from_environment());
    for (const EntryOrder order : {EntryOrder::oldest_first, EntryOrder::newest_first}) {
        for (const bool data_checksums : {true, false}) {
            LogShape shape = small_shape(order, true);
            shape.data_checksums = data_checksums;
            Bytes bytes = build_log(writes, shape);
            const std::vector<Part> parts = parts_of(writes, shape);
            REQUIRE(parts.size() == bytes.size());
            for (size_t at = 0; at < bytes.size(); ++at) {
                const std::byte change{uint8_t(1 + random() % 255)};
                bytes[at] ^= change;
                const ReadBack back = read_back(bytes);
                bytes[at] ^= change;
                INFO("HERALD_SEED=" << seed_from_environment() << " byte " << at);
                const bool covered =
                    parts[at] != Part::unused_slot && (parts[at] != Part::data || data_checksums);
                if (!covered) {
                    // As the specification says: found by nothing, and harms nothing else.
                    if (!back.whole || !back.error.empty()) FAIL(back.error);
                    if ((back.writes == writes) == (parts[at] == Part::data)) FAIL("elsewhere");
                    continue;
                }
                if (back.whole && back.error.empty()) FAIL("not found");
                if (back.opened && parts[at] == Part::header) FAIL("header believed");
                if (!is_prefix(back.writes, writes)) FAIL("other writes");
                // Nothing of the block, or the blocks behind it.
                if (back.opened && back.writes.size() > writes_before(writes, shape, at)) {
                    FAIL("writes after the changed byte");
                }
            }
        }
    }
}

TEST_CASE("a log that was not closed is searched: all its blocks, and what comes after is lost") {
    const std::vector<Write> writes = sample_writes(9, 40);
    for (const bool leading : {true, false}) {
        LogShape shape;
        shape.closed = false;
        shape.leading_block = leading;
        Bytes bytes = build_log(writes, shape);
        CHECK(read_back(bytes).writes == writes);
        CHECK(read_back(bytes).loss.find(" 0 bytes from byte") != std::string::npos);
        // Data whose metadata block was never written.
        bytes.resize(bytes.size() + 1500, std::byte{0x5a});
        const ReadBack back = read_back(bytes);
        CHECK(back.writes == writes);
        CHECK(back.loss.find("1500 bytes from byte") != std::string::npos);
    }
}

TEST_CASE("recovery of what recovery wrote gives the same writes") {
    const std::vector<Write> writes = sample_writes(10, 60);
    LogShape shape;
    shape.closed = false;
    const Bytes bytes = build_log(writes, shape);
    std::mt19937_64 random(seed_from_environment());
    for (size_t round = 0; round < 50 * tier_scale(); ++round) {
        const size_t cut = kHeaderBytes + random() % (bytes.size() - kHeaderBytes);
        const ReadBack first = read_back(ByteView(bytes).first(cut));
        Bytes repaired;
        auto sink = memory_sink(repaired);
        LogHeader header;
        header.time = kLeapDay;
        auto writer = LogWriter::open(*sink, header);
        REQUIRE(writer);
        for (const Write& write : first.writes) {
            REQUIRE(writer->append(write.offset, write.data, write.time));
        }
        REQUIRE(writer->finish());
        const ReadBack second = read_back(repaired);
        CHECK(second.whole);
        CHECK(second.writes == first.writes);
        // A crash while repairing leaves a log that is searched again.
        const ReadBack third =
            read_back(ByteView(repaired).first(kHeaderBytes + random() % (repaired.size() - 4095)));
        CHECK(is_prefix(third.writes, first.writes));
    }
}

TEST_CASE("a log in the data of a log that was not closed is not taken for part of it") {
    // The inner log was written to the disk from its byte 4096 on, so its blocks lie where the
    // outer log's could lie.
    LogShape inner_shape;
    std::vector<Write> inner_writes = sample_writes(11, 10);
    const Bytes inner = build_log(inner_writes, inner_shape);
    std::vector<Write> writes{{0, Bytes(inner.begin() + 4096 + 512, inner.end()), kLeapDay + 100}};
    LogShape shape;
    shape.closed = false;
    SECTION("older than the log around it: the times tell") {
        Bytes outer = build_log(writes, shape);
        LogHeaderDisk disk;
        std::memcpy(&disk, outer.data(), sizeof disk);
        auto header = decode_header(disk);
        REQUIRE(header);
        header->time = kLeapDay + 100;
        disk = encode_header(*header);
        std::memcpy(outer.data(), &disk, sizeof disk);
        const ReadBack back = read_back(outer);
        CHECK(back.writes == writes);
    }
    SECTION("as old: two blocks claim the same bytes, and neither is believed") {
        const ReadBack back = read_back(build_log(writes, shape));
        CHECK(back.writes.empty());
        CHECK(back.loss.find("two metadata blocks claim them") != std::string::npos);
    }
    SECTION("in a closed log there is nothing to tell") {
        shape.closed = true;
        CHECK(read_back(build_log(writes, shape)).writes == writes);
    }
}

namespace {

// As is_prefix(), as far as a sum of bytes can tell data apart: garbage has the sum of what it
// replaced once in some thousand times, and that is the format's, not the reader's.
bool is_prefix_by_sums(const std::vector<Write>& part, const std::vector<Write>& all) {
    if (part.size() > all.size()) return false;
    for (size_t i = 0; i < part.size(); ++i) {
        if (part[i].offset != all[i].offset || part[i].time != all[i].time ||
            part[i].data.size() != all[i].data.size() ||
            checksum_of(part[i].data) != checksum_of(all[i].data)) {
            return false;
        }
    }
    return true;
}

}  // namespace

TEST_CASE("random damage never yields writes that were not written") {
    const uint64_t seed = seed_from_environment();
    INFO("HERALD_SEED=" << seed);
    std::mt19937_64 random(seed);
    for (size_t round = 0; round < 300 * tier_scale(); ++round) {
        const std::vector<Write> writes = sample_writes(random(), 1 + random() % 60);
        LogShape shape;
        shape.order = random() % 2 ? EntryOrder::oldest_first : EntryOrder::newest_first;
        shape.closed = random() % 2;
        shape.entries_per_block = 1 + random() % 14;
        Bytes bytes = build_log(writes, shape);
        const size_t at = kHeaderBytes + random() % (bytes.size() - kHeaderBytes);
        const size_t size = std::min<size_t>(1 + random() % 4096, bytes.size() - at);
        switch (random() % 3) {
            case 0:  // never reached the disk
                std::fill_n(bytes.begin() + ptrdiff_t(at), size, std::byte{0});
                break;
            case 1: {  // garbage
                const Bytes garbage = noise(random, size);
                std::copy(garbage.begin(), garbage.end(), bytes.begin() + ptrdiff_t(at));
                break;
            }
            default:  // a piece is missing
                bytes.erase(bytes.begin() + ptrdiff_t(at), bytes.begin() + ptrdiff_t(at + size));
                break;
        }
        const ReadBack back = read_back(bytes);
        if (!is_prefix_by_sums(back.writes, writes)) FAIL("round " << round << ": other writes");
    }
}

namespace {

// Remembers what was written, so that a crash can leave any part of what was not synced.
class CrashSink : public ByteSink {
  public:
    Result<void> append(ByteView bytes) override { return replace(size_, bytes); }
    Result<void> replace(uint64_t offset, ByteView bytes) override {
        for (size_t at = 0; at < bytes.size(); at += 512) {
            const ByteView sector = bytes.subspan(at, std::min<size_t>(512, bytes.size() - at));
            pending_.push_back({offset + at, Bytes(sector.begin(), sector.end())});
        }
        size_ = std::max(size_, offset + bytes.size());
        return {};
    }
    Result<void> sync() override {
        for (const Sector& sector : pending_) put(durable_, sector);
        pending_.clear();
        return {};
    }
    uint64_t size() const override { return size_; }

    // What a crash now may leave: every sector since the last sync kept, dropped or garbage.
    Bytes crash(std::mt19937_64& random) const {
        Bytes file = durable_;
        const unsigned mood = random() % 4;
        for (Sector sector : pending_) {
            const unsigned fate = mood == 0 ? 0 : unsigned(random() % 8);
            if (fate == 1) sector.bytes.assign(sector.bytes.size(), std::byte{0});
            if (fate == 2) sector.bytes = noise(random, sector.bytes.size());
            if (fate != 3 || mood == 1) put(file, sector);
        }
        return file;
    }

  private:
    struct Sector {
        uint64_t offset;
        Bytes bytes;
    };
    static void put(Bytes& file, const Sector& sector) {
        file.resize(std::max<size_t>(file.size(), sector.offset + sector.bytes.size()));
        std::copy(sector.bytes.begin(), sector.bytes.end(),
                  file.begin() + ptrdiff_t(sector.offset));
    }
    Bytes durable_;
    std::vector<Sector> pending_;
    uint64_t size_ = 0;
};

}  // namespace

TEST_CASE("whatever a crash leaves of a log being written, only what was written is read") {
    const uint64_t seed = seed_from_environment();
    INFO("HERALD_SEED=" << seed);
    std::mt19937_64 random(seed);
    size_t opened = 0;
    size_t believed = 0;
    for (size_t round = 0; round < 400 * tier_scale(); ++round) {
        const std::vector<Write> writes = sample_writes(random(), 1 + random() % 50);
        CrashSink sink;
        LogHeader header;
        header.time = kLeapDay;
        header.metadata_bytes = 512;
        auto writer = LogWriter::open(sink, header);
        REQUIRE(writer);
        const size_t crash_at = random() % (writes.size() + 2);
        for (size_t i = 0; i < std::min(crash_at, writes.size()); ++i) {
            REQUIRE(writer->append(writes[i].offset, writes[i].data, writes[i].time));
            // As a writer that makes what it has durable now and then.
            if (random() % 16 == 0) REQUIRE(sink.sync());
        }
        const bool finished = crash_at > writes.size();
        if (finished) REQUIRE(writer->finish());
        const ReadBack back = read_back(sink.crash(random));
        if (finished && back.writes != writes) FAIL("round " << round << ": a durable log lost");
        if (!is_prefix_by_sums(back.writes, writes)) FAIL("round " << round << ": other writes");
        opened += back.opened;
        believed += back.writes.size();
    }
    // The states are worth something: most open, and much is saved.
    CHECK(opened > 200);
    CHECK(believed > 1000);
}

TEST_CASE("data that no entry describes is refused, wherever it is") {
    const std::vector<Write> writes = sample_writes(14, 3);
    const Bytes good = build_log(writes);
    LogHeaderDisk disk;
    std::memcpy(&disk, good.data(), sizeof disk);
    auto header = decode_header(disk);
    REQUIRE(header);
    for (const size_t more : {size_t{512}, size_t{5120}}) {
        // The block is moved back, and everything that says where it is, too.
        Bytes bytes = good;
        bytes.insert(bytes.end() - 512, Bytes(more, std::byte{0x5a}));
        LogHeader moved = *header;
        moved.current_bytes = moved.end_offset = bytes.size();
        disk = encode_header(moved);
        std::memcpy(bytes.data(), &disk, sizeof disk);
        std::byte* block = bytes.data() + bytes.size() - 512;
        store_le(block, uint64_t(bytes.size() - 512 - 4096));
        store_le(block + 12, checksum_around(ByteView(block, 32), 12));
        const ReadBack back = read_back(bytes);
        CHECK(back.whole);
        CHECK(back.writes.empty());
        CHECK(back.kind == ErrorKind::corrupt);
        CHECK(back.error.find("bytes of data, before it are") != std::string::npos);
    }
}

TEST_CASE("lengths, distances and counts from a file never lead outside it") {
    const std::vector<Write> writes = sample_writes(12, 20);
    const Bytes good = build_log(writes);
    LogHeaderDisk disk;
    std::memcpy(&disk, good.data(), sizeof disk);
    auto header = decode_header(disk);
    REQUIRE(header);
    const auto with_header = [&](auto change) {
        LogHeader changed = *header;
        change(changed);
        Bytes bytes = good;
        const LogHeaderDisk forged = encode_header(changed);
        std::memcpy(bytes.data(), &forged, sizeof forged);
        return read_back(bytes);
    };
    for (const uint64_t end : {uint64_t{1}, uint64_t{511}, uint64_t{4095}, uint64_t{4097},
                               good.size() - 1, good.size() + 1, UINT64_MAX, UINT64_MAX - 511}) {
        const ReadBack back = with_header([&](LogHeader& h) {
            h.end_offset = end;
            h.current_bytes = UINT64_MAX;
        });
        CHECK_FALSE(back.whole);
        CHECK(is_prefix(back.writes, writes));
    }
    for (const uint32_t size : {0u, 32u, 511u, 65'536u + 512u, UINT32_MAX}) {
        CHECK_FALSE(with_header([&](LogHeader& h) { h.metadata_bytes = size; }).opened);
    }
    CHECK_FALSE(with_header([&](LogHeader& h) { h.entry_count += 1; }).whole);
    const ReadBack empty = with_header([](LogHeader& h) {
        h.end_offset = 4096;
        h.entry_count = 0;
    });
    CHECK(empty.whole);
    CHECK(empty.writes.empty());

    // Distances: forged in the last block.
    for (const uint64_t distance :
         {uint64_t{1}, uint64_t{511}, uint64_t(good.size()), UINT64_MAX, uint64_t{1} << 63}) {
        Bytes bytes = good;
        std::byte* block = bytes.data() + bytes.size() - 512;
        store_le(block, distance);
        store_le(block + 12, checksum_around(ByteView(block, 32), 12));
        const ReadBack back = read_back(bytes);
        CHECK_FALSE(back.whole);
        CHECK(back.writes.size() == 14);
        CHECK(is_prefix(back.writes, writes));
    }
}

TEST_CASE("a log whose header counts entries and ends where the header ends is not whole") {
    const auto writes = sample_writes(5, 20);
    for (const bool empty : {false, true}) {
        Bytes bytes = build_log(empty ? std::vector<Write>() : writes);
        LogHeaderDisk disk;
        std::memcpy(&disk, bytes.data(), sizeof disk);
        auto header = decode_header(disk);
        REQUIRE(header);
        CHECK(read_back(bytes).whole);
        // Somebody puts the end in front of everything: twenty writes would be gone unnoticed.
        header->end_offset = kHeaderBytes;
        disk = encode_header(*header);
        std::memcpy(bytes.data(), &disk, sizeof disk);
        const ReadBack back = read_back(bytes);
        CHECK(back.opened);
        CHECK(back.whole == empty);
        CHECK(back.writes.empty());
        CHECK((back.loss.find("counts 20 entries") != std::string::npos) != empty);
    }
}
