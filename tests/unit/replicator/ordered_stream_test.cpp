// SPDX-License-Identifier: Apache-2.0
// DiskStream over the driver dm_cbt: what is restorable at every boundary of the stream.
#include <set>

#include "tests/catch.hpp"
#include "tests/cbt_producer.h"
#include "user/hrl/segment_reader.h"
#include "user/replicator/disk_stream.h"
#include "user/tracker/cbt_tracker.h"
#include "user/vault/stream_state.h"

using namespace herald;
using namespace herald::replicator;
using K = hrl::RecordKind;

namespace {

constexpr uint64_t kBlock = HERALD_BLOCK_BYTES;
constexpr uint64_t kBlocks = 16;
constexpr uint64_t kSlots = 32;

struct Died {};

struct Host {
    std::string die_at;  // the step at which this process ends
    test::CbtProducer producer;
    Bytes disk = Bytes(kBlocks * kBlock);
    std::unique_ptr<tracker::CbtTracker> tracker;
    std::optional<DiskStream> stream;
    Uuid id = Uuid::random();
    uint64_t now = 5'000'000'000;
    uint64_t read_bytes = 0;
    // The server.
    uint64_t epoch = 0;
    Uuid session, head_segment;
    Bytes image = Bytes(kBlocks * kBlock);
    vault::StreamState state;
    struct Seen {
        K kind;
        uint64_t position, time_ns, offset, length;
        std::string refusal;  // of the boundary behind it
    };
    std::vector<Seen> seen;

    Host() {
        producer.add_disk(kBlocks * 128, kSlots, 256 << 10);
        boot();
    }
    void boot() {
        stream.reset();
        tracker.reset();
        auto attached = tracker::CbtTracker::attach(
            {[this] { return producer.open(); }, test::CbtProducer::device(0), id});
        REQUIRE(attached);
        tracker = std::move(*attached);
        StreamOptions options;
        options.disk = id;
        options.disk_bytes = tracker->disk_bytes();
        stream.emplace(
            options, *tracker, [] { return Uuid::random(); },
            [this](const char* step) {
                if (step == die_at) throw Died{};
            });
    }
    Verdict start() {
        auto request = stream->intend(Uuid::random());
        REQUIRE(request);
        wire::SessionGrant grant;
        grant.epoch = ++epoch;
        grant.head = seen.empty() ? 0 : seen.back().position;
        grant.head_segment = head_segment;
        grant.head_epoch = epoch - 1;
        grant.previous_session = std::exchange(session, request->session);
        grant.digests = true;
        grant.complete = state.complete();
        auto verdict = stream->adopt(grant, now);
        INFO((verdict ? "" : verdict.error().message));
        REQUIRE(verdict);
        return *verdict;
    }
    uint64_t submit(uint64_t sector, uint64_t sectors, uint8_t fill) {
        return producer
            .submit(0, HERALD_CBT_WRITE, sector, sectors, Bytes(sectors * 512, std::byte{fill}))
            .id;
    }
    void land(uint64_t sector, uint64_t sectors, uint8_t fill) {
        std::fill_n(disk.begin() + sector * 512, sectors * 512, std::byte{fill});
    }
    void write(uint64_t sector, uint64_t sectors, uint8_t fill) {
        const uint64_t write = submit(sector, sectors, fill);
        land(sector, sectors, fill);
        producer.complete(0, write);
    }
    Bytes read(const Chunk& chunk) {
        read_bytes += chunk.length;
        const auto begin = disk.begin() + chunk.offset;
        return Bytes(begin, begin + chunk.length);
    }
    bool begin_scan() {
        auto begun = stream->begin_scan(false, now);
        INFO((begun ? "" : begun.error().message));
        REQUIRE(begun);
        return stream->scanning();
    }
    void read_all() {
        for (;;) {
            const auto chunks = stream->take(4 * kBlock);
            if (chunks.empty()) return;
            for (const Chunk& chunk : chunks)
                REQUIRE(stream->read_done(chunk.id, read(chunk), now));
        }
    }
    void emit() {
        for (auto more = stream->emit_changes(1 << 20);; more = stream->emit_changes(1 << 20)) {
            REQUIRE(more);
            if (!*more) return;
        }
    }
    void end_scan() {
        REQUIRE(stream->settle());
        emit();
        REQUIRE(stream->scan_passed());
        REQUIRE(stream->finish_scan(false, now));
    }
    bool scan() {
        if (!begin_scan()) return false;
        read_all();
        end_scan();
        return true;
    }
    // What is closed reaches the server and is stored.
    void store() {
        REQUIRE(stream->flush());
        auto closed = stream->take_closed();
        REQUIRE(closed);
        for (const SegmentPtr& segment : *closed) {
            state.begin_segment(segment->header.disk_bytes);
            head_segment = segment->header.segment;
            REQUIRE(hrl::verify_segment(hrl::memory_source(segment->bytes, "segment"),
                                        [&](const hrl::Record& record) {
                                            apply(record);
                                            return Result<void>();
                                        }));
        }
        REQUIRE(stream->acknowledged(stream->last_position()));
        producer.tick(0);
        producer.tick(0);
    }
    void apply(const hrl::Record& record) {
        const auto at = image.begin() + record.offset;
        if (record.kind == K::write) std::copy(record.data.begin(), record.data.end(), at);
        if (record.kind == K::zeroes) std::fill_n(at, record.length, std::byte{});
        REQUIRE(state.observe(record));
        seen.push_back({record.kind, record.position, record.time_ns, record.offset, record.length,
                        state.refusal()});
    }
    std::vector<Seen> store_and_see() {
        const size_t before = seen.size();
        store();
        return {seen.begin() + std::ptrdiff_t(before), seen.end()};
    }
    void synchronise() {
        start();
        emit();
        // The initial one covers the whole disk; a second, empty or not, what came meanwhile.
        while (scan()) store();
        store();
        REQUIRE(state.refusal().empty());
        REQUIRE(image == disk);
        read_bytes = 0;
    }
};

}  // namespace

TEST_CASE_METHOD(Host,
                 "an ordered stream begins with a scan of the whole disk, then each boundary "
                 "is restorable") {
    land(5 * 128, 128, 7);
    REQUIRE(start().baseline == Baseline::initial);
    emit();
    REQUIRE(begin_scan());
    read_all();
    write(0, 8, 1);
    end_scan();
    store();
    CHECK(read_bytes == disk.size());
    CHECK(image == disk);
    CHECK(state.refusal().empty());
    CHECK(stream->synced());
    CHECK_FALSE(begin_scan());
    write(8, 8, 2);
    write(16, 8, 0);
    emit();
    const auto records = store_and_see();
    REQUIRE(records.size() == 2);
    CHECK(records[0].kind == K::write);
    CHECK(records[1].kind == K::zeroes);
    CHECK(records[1].time_ns > records[0].time_ns);
    for (const Seen& record : records) CHECK(record.refusal.empty());
    CHECK(image == disk);
    for (uint64_t block = 0; block < kBlocks; ++block)
        CHECK_FALSE(producer.disk(0).is_dirty(block));
}

TEST_CASE_METHOD(Host, "what was written while a chunk was read is never undone by it") {
    start();
    emit();
    REQUIRE(begin_scan());
    const auto chunks = stream->take(2 * kBlock);
    std::vector<Bytes> data;
    for (const Chunk& chunk : chunks) data.push_back(read(chunk));
    write(4, 8, 9);
    emit();
    for (size_t i = 0; i < chunks.size(); ++i) {
        REQUIRE(stream->read_done(chunks[i].id, data[i], now));
    }
    read_all();
    end_scan();
    store();
    CHECK(image == disk);
}

TEST_CASE_METHOD(Host,
                 "a scan ends its span only when it has passed what its reads may have seen") {
    synchronise();
    REQUIRE(stream->mark_all());
    REQUIRE(begin_scan());
    const uint64_t in_flight = submit(0, 8, 3);
    land(0, 8, 3);  // on the disk, and read, before it has completed
    read_all();
    REQUIRE(stream->settle());
    emit();
    CHECK_FALSE(stream->scan_passed());
    producer.complete(0, in_flight);
    emit();
    CHECK(stream->scan_passed());
    REQUIRE(stream->finish_scan(false, now));
    for (const Seen& record : store_and_see()) {
        CHECK(record.refusal.empty() == (record.kind == K::scan_end));
    }
}

TEST_CASE_METHOD(Host, "a scan that ends before that says that another is needed") {
    synchronise();
    REQUIRE(stream->mark_all());
    REQUIRE(begin_scan());
    const uint64_t in_flight = submit(0, 8, 3);
    land(0, 8, 3);
    read_all();
    REQUIRE(stream->settle());
    REQUIRE(stream->finish_scan(false, now));
    store();
    CHECK_FALSE(state.refusal().empty());
    producer.complete(0, in_flight);
    while (scan()) store();
    CHECK(state.refusal().empty());
    CHECK(image == disk);
}

TEST_CASE_METHOD(Host, "a ring that overflowed makes a fuzzy span and a scan of what was written") {
    synchronise();
    for (unsigned i = 0; i < kSlots + 10; ++i) write(3 * 128 + i % 8, 1, uint8_t(i + 1));
    write(9 * 128, 8, 77);
    emit();
    const auto records = store_and_see();
    // Before the loss every boundary is restorable, behind it none.
    bool sunk = false;
    for (const Seen& record : records) {
        sunk = sunk || record.kind == K::mode_change;
        CHECK(record.refusal.empty() == !sunk);
    }
    CHECK(sunk);
    CHECK(state.state() == "fuzzy");
    CHECK(state.cause().find("no scan has ended since the mode became ordered") == 0);
    while (scan()) store();
    CHECK(state.refusal().empty());
    CHECK(image == disk);
    CHECK(read_bytes == 2 * kBlock);
}

TEST_CASE_METHOD(Host,
                 "writes without data are read, and the slots that they took are then stored") {
    synchronise();
    for (unsigned i = 0; i < 5; ++i) write(i * 128, 128, uint8_t(i + 1));
    CHECK(tracker->header().mode == HERALD_CBT_MODE_EXTENTS);
    emit();
    store();
    CHECK(state.state() == "fuzzy");
    CHECK(producer.disk(0).generations.stored < tracker->header().head - 1);
    while (scan()) store();
    emit();
    store();
    while (scan()) store();
    CHECK(state.refusal().empty());
    CHECK(image == disk);
    CHECK(producer.disk(0).generations.stored == tracker->header().head);
    for (uint64_t block = 0; block < kBlocks; ++block)
        CHECK_FALSE(producer.disk(0).is_dirty(block));
}

TEST_CASE_METHOD(Host, "a failed write makes a span that its own scan ends") {
    synchronise();
    const uint64_t failed = submit(40, 8, 5);
    land(40, 4, 5);
    producer.complete(0, failed, false);
    emit();
    const auto records = store_and_see();
    REQUIRE(records.size() == 1);
    CHECK(records[0].kind == K::reread);
    CHECK_FALSE(records[0].refusal.empty());
    CHECK(scan());
    store();
    CHECK(state.refusal().empty());
    CHECK(image == disk);
    CHECK(read_bytes == kBlock);
}

TEST_CASE_METHOD(Host, "a hung write does not stop the stream, and its end at last has its place") {
    synchronise();
    const uint64_t hung = submit(40, 8, 5);
    write(80, 8, 6);
    emit();
    producer.give_up_waiting(0, hung);
    emit();
    store();
    CHECK_FALSE(state.refusal().empty());
    while (scan()) store();
    CHECK(state.refusal().empty());
    CHECK(image == disk);
    land(40, 8, 5);
    producer.complete(0, hung);
    write(90, 1, 7);
    emit();
    for (const Seen& record : store_and_see()) CHECK_FALSE(record.refusal.empty());
    while (scan()) store();
    CHECK(state.refusal().empty());
    CHECK(image == disk);
}

TEST_CASE_METHOD(Host, "a tag lies at its place among the writes, with no scan") {
    synchronise();
    write(0, 1, 1);
    hrl::Tag tag;
    tag.id = Uuid::random();
    tag.name = "before";
    tag.consistency = hrl::Consistency::crash;
    REQUIRE(stream->request_tag(tag));
    write(0, 1, 2);
    CHECK_FALSE(stream->tag_place(tag.id));
    emit();
    const auto place = stream->tag_place(tag.id);
    REQUIRE(place);
    CHECK(place->refusal.empty());
    CHECK_FALSE(stream->tag_place(tag.id));
    const auto records = store_and_see();
    REQUIRE(records.size() == 3);
    CHECK(records[1].kind == K::tag);
    CHECK(records[1].position == place->position);
    CHECK(records[1].time_ns == place->time_ns);
    CHECK(read_bytes == 0);
    // Not while the driver has no order to offer, and not in a span.
    for (unsigned i = 0; i < kSlots + 10; ++i) write(i, 1, 1);
    CHECK_FALSE(stream->request_tag(tag));
    emit();
    CHECK_FALSE(stream->request_tag(tag));
}

TEST_CASE_METHOD(Host,
                 "a process that dies costs what it had drained and not stored, nothing else") {
    synchronise();
    write(1 * 128, 8, 1);
    emit();
    store();
    write(2 * 128, 8, 2);
    emit();  // dies with it
    write(3 * 128, 8, 3);
    boot();
    REQUIRE(start().baseline == Baseline::continues);
    emit();
    while (scan()) store();
    CHECK(state.refusal().empty());
    CHECK(image == disk);
    CHECK(read_bytes == 0);  // the ring still had it
    // Given back, as the ring was half full: then it is read.
    for (unsigned i = 0; i < kSlots - 4; ++i) write(7 * 128, 1, uint8_t(i));
    emit();
    boot();
    REQUIRE(start().baseline == Baseline::continues);
    emit();
    while (scan()) store();
    CHECK(state.refusal().empty());
    CHECK(image == disk);
    CHECK(read_bytes == kBlock);
}

TEST_CASE_METHOD(Host, "a process that dies as changes leave the ring loses none of them") {
    synchronise();
    uint8_t fill = 0;
    for (const char* step : {"replicator.changes_emitted", "replicator.changes_released"}) {
        // A few changes, and so many that their place in the ring is given back.
        for (const unsigned changes : {3u, unsigned(kSlots - 4)}) {
            CAPTURE(step, changes);
            const std::set<uint64_t> blocks{2, 5};
            for (unsigned i = 0; i < changes; ++i) write((i % 2 ? 2 : 5) * 128, 8, ++fill);
            die_at = step;
            REQUIRE_THROWS_AS(emit(), Died);
            die_at.clear();
            for (const uint64_t block : blocks) CHECK(producer.disk(0).is_dirty(block));
            write(9 * 128, 8, ++fill);
            boot();
            REQUIRE(start().baseline == Baseline::continues);
            emit();
            while (scan()) store();
            store();
            CHECK(state.refusal().empty());
            CHECK(image == disk);
            // At most what was not stored is read again.
            CHECK(read_bytes <= (blocks.size() + 1) * kBlock);
            read_bytes = 0;
        }
    }
}

TEST_CASE_METHOD(Host, "a power cut costs a scan of what was not stored") {
    synchronise();
    write(4 * 128, 8, 1);
    const uint64_t torn = submit(6 * 128, 8, 2);
    (void)torn;
    land(6 * 128, 3, 2);
    stream.reset();
    tracker.reset();
    producer.power_cut(0);
    boot();
    REQUIRE(start().baseline == Baseline::continues);
    emit();
    while (scan()) store();
    CHECK(state.refusal().empty());
    CHECK(image == disk);
    CHECK(read_bytes == 2 * kBlock);
}

TEST_CASE_METHOD(Host, "a disk that grew or shrank goes on in a new session, without a compare") {
    synchronise();
    write(0, 1, 1);
    for (const uint64_t blocks : {kBlocks + 4, kBlocks - 6}) {
        disk.resize(blocks * kBlock, std::byte{9});
        producer.resize(0, blocks * 128);
        auto emitted = stream->emit_changes(1 << 20);
        REQUIRE_FALSE(emitted);
        CHECK(emitted.error().kind == ErrorKind::resync);
        const uint64_t before = image.size();
        image.resize(disk.size());
        read_bytes = 0;
        boot();
        const Verdict verdict = start();
        CHECK(verdict.baseline == Baseline::continues);
        CHECK(verdict.gap.empty());
        emit();
        while (scan()) store();
        CHECK(state.refusal().empty());
        CHECK(image == disk);
        // And what was not stored yet when the new blocks were marked.
        CHECK(read_bytes <= kBlock + (disk.size() > before ? disk.size() - before : 0));
    }
}

TEST_CASE_METHOD(Host, "differences that a compare found outlive the process") {
    synchronise();
    REQUIRE(stream->distrust("because"));
    boot();
    REQUIRE(start().baseline == Baseline::compare);
    land(11 * 128, 8, 1);
    stream->differs({11, 1});
    REQUIRE(stream->baseline_done());
    boot();
    REQUIRE(start().baseline == Baseline::continues);
    emit();
    while (scan()) store();
    CHECK(image == disk);
    CHECK(read_bytes == kBlock);
}

TEST_CASE_METHOD(Host, "a segment holds no more markers than a server takes") {
    synchronise();
    for (unsigned i = 0; i < HERALD_SEGMENT_MARKERS_MAX / 8; ++i) {
        for (unsigned j = 0; j < 16; ++j) producer.complete(0, submit(j, 1, 1), false);
        emit();
    }
    REQUIRE(stream->flush());
    auto closed = stream->take_closed();
    REQUIRE(closed);
    CHECK(closed->size() > 1);
    for (const SegmentPtr& segment : *closed) {
        uint64_t markers = 0;
        REQUIRE(hrl::verify_segment(hrl::memory_source(segment->bytes, "segment"),
                                    [&](const hrl::Record& record) {
                                        markers += record.kind == K::reread;
                                        return Result<void>();
                                    }));
        CHECK(markers <= HERALD_SEGMENT_MARKERS_MAX);
    }
}
