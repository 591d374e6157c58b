// SPDX-License-Identifier: Apache-2.0
#include "user/tracker/cbt_reader.h"

#include "tests/catch.hpp"
#include "tests/cbt_producer.h"

using namespace herald;
using tracker::CbtReader;
using tracker::OrderedChange;
using Kind = OrderedChange::Kind;

namespace {

constexpr uint64_t kSectors = 16 * 128;
constexpr uint64_t kSlots = 16;
constexpr uint64_t kPayload = 64 << 10;

struct Host {
    test::CbtProducer producer;
    std::optional<tracker::CbtDevice> device;
    std::optional<CbtReader> reader;
    std::vector<std::pair<uint64_t, uint64_t>> to_read;

    Host() {
        producer.add_disk(kSectors, kSlots, kPayload);
        own();
        // The climb to ordered of a first owner.
        REQUIRE(next()->kind == Kind::ordered);
    }
    void own() {
        reader.reset();
        device.reset();
        device.emplace(std::move(*producer.open()));
        auto owned = device->own(producer.device(0));
        REQUIRE(owned);
        reader.emplace(device->areas(), *owned, "test", [this](uint64_t offset, uint64_t length) {
            to_read.emplace_back(offset / 512, length / 512);
        });
    }
    std::optional<OrderedChange> next() {
        auto change = reader->next();
        INFO((change ? "" : change.error().message));
        REQUIRE(change);
        return *change;
    }
    std::string error() {
        auto change = reader->next();
        return change ? "" : change.error().message;
    }
    uint64_t submit(uint64_t sector, uint64_t sectors, uint8_t fill,
                    herald_cbt_kind kind = HERALD_CBT_WRITE) {
        const Bytes data(kind == HERALD_CBT_WRITE ? sectors * 512 : 0, std::byte{fill});
        return producer.submit(0, kind, sector, sectors, data).id;
    }
    void write(uint64_t sector, uint64_t sectors, uint8_t fill) {
        producer.complete(0, submit(sector, sectors, fill));
    }
    void release() { REQUIRE(device->release(reader->drained(), reader->drained(), 0)); }
    herald_cbt_slot_abi& newest() {
        auto& disk = producer.disk(0);
        return disk.slots[(disk.ring.head - 1) & (kSlots - 1)];
    }
};

}  // namespace

TEST_CASE_METHOD(Host, "changes come in the order of submission and stop at one in flight") {
    const uint64_t a = submit(0, 1, 1);
    const uint64_t b = submit(1, 2, 2);
    producer.complete(0, b);
    CHECK_FALSE(next());
    producer.complete(0, a);
    auto first = next();
    REQUIRE(first);
    CHECK(first->kind == Kind::write);
    CHECK(first->offset == 0);
    CHECK(first->data.size() == 512);
    CHECK(first->data[0] == std::byte{1});
    auto second = next();
    REQUIRE(second);
    CHECK(second->offset == 512);
    CHECK(second->length == 1024);
    CHECK(second->data[1023] == std::byte{2});
    CHECK(second->time_ns > first->time_ns);
    CHECK_FALSE(next());
    CHECK(to_read.empty());
}

TEST_CASE_METHOD(Host, "zeroes, discards and erases keep their kinds") {
    for (const auto kind : {HERALD_CBT_WRITE_ZEROES, HERALD_CBT_DISCARD, HERALD_CBT_SECURE_ERASE}) {
        producer.complete(0, submit(8, 8, 0, kind));
    }
    CHECK(next()->kind == Kind::zeroes);
    CHECK(next()->kind == Kind::discard);
    CHECK(next()->kind == Kind::secure_erase);
    const uint64_t refused = submit(8, 8, 0, HERALD_CBT_DISCARD);
    newest().flags |= HERALD_CBT_SLOT_NO_EFFECT;
    producer.complete(0, refused);
    CHECK(next()->kind == Kind::nothing);
    // Only of a discard is nothing known to have been done.
    const uint64_t zeroes = submit(8, 8, 0, HERALD_CBT_WRITE_ZEROES);
    newest().flags |= HERALD_CBT_SLOT_NO_EFFECT;
    producer.complete(0, zeroes);
    CHECK(next()->kind == Kind::reread);
    CHECK(to_read == std::vector<std::pair<uint64_t, uint64_t>>{{8, 8}});
}

TEST_CASE_METHOD(Host, "a failed write is read again, a hung one is passed over") {
    producer.complete(0, submit(4, 4, 1), false);
    auto failed = next();
    CHECK(failed->kind == Kind::reread);
    CHECK(failed->offset == 4 * 512);
    CHECK(to_read == std::vector<std::pair<uint64_t, uint64_t>>{{4, 4}});
    const uint64_t hung = submit(100, 8, 2);
    write(0, 1, 3);
    CHECK_FALSE(next());
    producer.give_up_waiting(0, hung);
    CHECK(next()->kind == Kind::reread);
    CHECK(next()->kind == Kind::write);
    CHECK(to_read.size() == 1);
    // When it ends at last, that has a place of its own.
    producer.complete(0, hung);
    auto ended = next();
    CHECK(ended->kind == Kind::reread);
    CHECK(ended->offset == 100 * 512);
    CHECK(to_read.back() == std::pair<uint64_t, uint64_t>{100, 8});
}

TEST_CASE_METHOD(Host, "a full payload ring makes extents, from its place on and until the climb") {
    for (int i = 0; i < 4; ++i) write(uint64_t(i) * 32, 32, uint8_t(i + 1));
    write(500, 1, 9);
    write(501, 1, 9);
    for (int i = 0; i < 4; ++i) CHECK(next()->kind == Kind::write);
    auto sunk = next();
    CHECK(sunk->kind == Kind::extents);
    CHECK(sunk->cause.find("payload ring was full") != std::string::npos);
    CHECK(next()->kind == Kind::nothing);
    CHECK(next()->kind == Kind::nothing);
    CHECK(to_read == std::vector<std::pair<uint64_t, uint64_t>>{{500, 1}, {501, 1}});
    CHECK_FALSE(next());
    release();
    CHECK(next()->kind == Kind::ordered);
    write(7, 1, 7);
    CHECK(next()->kind == Kind::write);
}

TEST_CASE_METHOD(Host, "a full ring makes map, told behind the last slot, and climbs by itself") {
    for (uint64_t i = 0; i < kSlots + 5; ++i) write(i, 1, 1);
    uint64_t writes = 0;
    std::optional<OrderedChange> change;
    while ((change = next()) && change->kind == Kind::write) ++writes;
    CHECK(writes == kSlots - 1);
    REQUIRE(change);
    CHECK(change->kind == Kind::map);
    CHECK_FALSE(next());
    release();
    CHECK(next()->kind == Kind::ordered);
    CHECK((producer.disk(0).generations.current_flags & HERALD_CBT_GENERATION_NEEDS_SCAN) != 0);
}

TEST_CASE_METHOD(Host, "tags keep their place and their id; one that was downgraded says so") {
    const Uuid id = Uuid::random();
    const herald_cbt_disk_abi disk = producer.device(0);
    // A gap is open until the reader has closed it: no moment is whole.
    CHECK(device->tag(id, HERALD_CBT_TAG_ALL, {&disk, 1})->answers[0].result == HERALD_CBT_REFUSED);
    REQUIRE(device->ack(0, 0, 0, true));
    const uint64_t in_flight = submit(0, 1, 1);
    auto landed = device->tag(id, HERALD_CBT_TAG_ALL, {&disk, 1});
    REQUIRE(landed);
    CHECK(landed->answers[0].result == HERALD_CBT_LANDED);
    CHECK_FALSE(next());
    producer.complete(0, in_flight);
    CHECK(next()->kind == Kind::write);
    auto tag = next();
    CHECK(tag->kind == Kind::tag);
    CHECK(tag->id == id);
    CHECK(tag->time_ns == landed->time_ns);
    CHECK_FALSE(tag->downgraded);
    // Not ordered: all or nothing refuses, else it is downgraded and the stream knows why.
    for (int i = 0; i < 3; ++i) write(uint64_t(i) * 32, 32, 1);
    while (next()) {
    }
    write(0, 32, 1);
    CHECK(device->tag(id, HERALD_CBT_TAG_ALL, {&disk, 1})->answers[0].result == HERALD_CBT_REFUSED);
    CHECK(device->tag(id, 0, {&disk, 1})->answers[0].result == HERALD_CBT_DOWNGRADED);
    CHECK(next()->kind == Kind::extents);
    CHECK(next()->kind == Kind::nothing);
    CHECK(next()->downgraded);
}

TEST_CASE_METHOD(Host, "an acknowledged position covers slots up to a mark, and never one unread") {
    write(0, 1, 1);
    write(1, 1, 1);
    REQUIRE(next());
    reader->emitted(10);
    REQUIRE(next());
    reader->emitted(11);
    CHECK(reader->slots_at(9) == 0);
    CHECK(reader->slots_at(11) == 3);
    CHECK(reader->slots_at(100) == 3);
    // Failed: its place is in the stream, its content is not.
    producer.complete(0, submit(4, 4, 1), false);
    write(2, 1, 1);
    REQUIRE(next());
    reader->emitted(12);
    REQUIRE(next());
    reader->emitted(13);
    CHECK(reader->slots_at(100) == 3);
    reader->all_read(20);
    CHECK(reader->slots_at(11) == 3);
    CHECK(reader->slots_at(19) == 3);
    CHECK(reader->slots_at(20) == 5);
    reader->forget(20);
    CHECK(reader->slots_at(0) == 5);
}

TEST_CASE_METHOD(Host, "marks are bounded, and what they cover is never too much") {
    uint64_t position = 100;
    for (uint64_t i = 0; i < 3 * CbtReader::kMarksMax; ++i) {
        write(i % 8, 1, 1);
        const auto change = next();
        REQUIRE(change);
        reader->emitted(++position);
        release();
        // Every position of before covers at most the slots up to it.
        for (uint64_t back = 0; back <= i; back += 997) {
            REQUIRE(reader->slots_at(position - back) <= reader->drained() - back);
        }
        REQUIRE(reader->slots_at(position) == reader->drained());
    }
    REQUIRE(reader->marks() <= CbtReader::kMarksMax);
    REQUIRE(reader->slots_at(position / 2) > 0);
}

TEST_CASE_METHOD(Host, "slots are given back when received, or all when the ring is half full") {
    for (uint64_t i = 0; i < 4; ++i) write(i, 1, 1);
    while (next()) {
    }
    CHECK(reader->releasable(3) == 3);
    for (uint64_t i = 0; i < 6; ++i) write(i, 1, 1);
    while (next()) {
    }
    CHECK(reader->releasable(3) == reader->drained());
    CHECK(reader->drained() == 11);
}

TEST_CASE_METHOD(Host, "whatever the shared memory holds, it is refused by name") {
    write(0, 2, 1);
    herald_cbt_slot_abi& slot = newest();
    herald_cbt_header_abi& header = producer.disk(0).header[0];
    const herald_cbt_slot_abi good = slot;
    const auto refuses = [&](const char* what) {
        const std::string said = error();
        INFO(said);
        CHECK(said.find("test: its ring cannot be true") != std::string::npos);
        CHECK(said.find(what) != std::string::npos);
        slot = good;
    };
    slot.state = 77;
    refuses("state 77");
    slot.state = 0;
    refuses("state 0");
    // Of an earlier turn of the ring.
    ++slot.id[1];
    refuses("says that it is slot");
    slot.kind = 99;
    refuses("kind 99");
    slot.sectors = 0;
    refuses("covers 0 sectors");
    slot.sector = ~0ull;
    refuses("sectors from");
    slot.sector = HERALD_CBT_DISK_SECTORS_MAX - 1;
    refuses("sectors from");
    slot.payload_bytes = 512;
    refuses("512 bytes of data for 2 sectors");
    slot.payload_bytes = ~0u;
    refuses("bytes of data");
    slot.payload = kPayload - 512;
    refuses("outside of the payload");
    slot.kind = HERALD_CBT_MODE;
    slot.argument = 1ull << 40;
    refuses("names mode");
    slot.kind = HERALD_CBT_MODE;
    slot.argument = 0;
    refuses("mode 0");
    slot.kind = HERALD_CBT_RESIZE;
    slot.sector = 0;
    refuses("0 sectors large");
    const uint64_t head = header.head;
    header.head = head + kSlots;
    refuses("it ends at slot");
    header.head = 0;
    refuses("it ends at slot");
    header.head = head;
    CHECK(next()->kind == Kind::write);
    header.mode = 9;
    refuses("mode 9");
}

TEST_CASE("rings of impossible sizes are not mapped") {
    test::CbtProducer producer;
    producer.add_disk(kSectors, kSlots, kPayload);
    auto device = producer.open();
    auto& header = producer.disk(0).header[0];
    header.magic = 1;
    CHECK(device->own(producer.device(0)).error().kind == ErrorKind::corrupt);
    header.magic = HERALD_CBT_HEADER_MAGIC;
    producer.disk(0).owner = 0;
    header.slots = 32;
    CHECK(device->own(producer.device(0)).error().kind == ErrorKind::corrupt);
    producer.disk(0).owner = 0;
    header.slots = kSlots;
    header.version = 2;
    CHECK(device->own(producer.device(0)).error().kind == ErrorKind::operator_needed);
}

TEST_CASE("slots of two disks are ordered by their times") {
    test::CbtProducer producer;
    for (int i = 0; i < 2; ++i) producer.add_disk(kSectors, kSlots, kPayload);
    std::vector<tracker::CbtDevice> devices;
    std::vector<CbtReader> readers;
    for (size_t i = 0; i < 2; ++i) {
        devices.push_back(std::move(*producer.open()));
        auto own = devices[i].own(producer.device(i));
        REQUIRE(own);
        readers.emplace_back(devices[i].areas(), *own, "test", [](uint64_t, uint64_t) {});
        REQUIRE(*readers[i].next());
    }
    const Bytes data(512, std::byte{1});
    std::vector<uint64_t> times;
    for (int i = 0; i < 6; ++i) {
        const size_t disk = size_t(i) % 2;
        producer.complete(disk, producer.submit(disk, HERALD_CBT_WRITE, 0, 1, data).id);
    }
    const herald_cbt_disk_abi both[] = {producer.device(0), producer.device(1)};
    auto cut = devices[0].cut(both);
    REQUIRE(cut);
    for (int i = 0; i < 6; ++i) times.push_back((*readers[size_t(i) % 2].next())->time_ns);
    CHECK(std::is_sorted(times.begin(), times.end()));
    CHECK(std::adjacent_find(times.begin(), times.end()) == times.end());
    CHECK(cut->time_ns > times.back());
    for (size_t i = 0; i < 2; ++i) CHECK(cut->answers[i].slot == readers[i].drained());
}
