// SPDX-License-Identifier: Apache-2.0
#include "user/tracker/cbt_tracker.h"

#include "tests/catch.hpp"
#include "tests/cbt_producer.h"
#include "tests/temp_dir.h"

using namespace herald;
using tracker::BlockRun;
using tracker::CbtTracker;

namespace {

constexpr uint64_t kBlocks = 16;
constexpr uint64_t kSlots = 16;

struct Host {
    test::TempDir dir;
    test::CbtProducer producer;
    Uuid id = Uuid::random();
    std::unique_ptr<CbtTracker> tracker;
    uint64_t position = 100;

    Host() {
        producer.add_disk(kBlocks * 128, kSlots, 64 << 10);
        producer.disk(0).gap = HERALD_CBT_CAUSE_NONE;
        attach();
    }
    void attach() {
        tracker.reset();
        auto attached =
            CbtTracker::attach({[this] { return producer.open(); }, test::CbtProducer::device(0),
                                id, dir.path() / "disk.given-up"});
        INFO((attached ? "" : attached.error().message));
        REQUIRE(attached);
        tracker = std::move(*attached);
    }
    void write(uint64_t block) {
        const Bytes data(512, std::byte{1});
        producer.complete(0, producer.submit(0, HERALD_CBT_WRITE, block * 128, 1, data).id);
    }
    void drain_changes() {
        for (;;) {
            auto change = tracker->next();
            REQUIRE(change);
            if (!*change) break;
            tracker->emitted(++position);
        }
        REQUIRE(tracker->release());
    }
    // As a scan does: all that is to do is read, emitted and stored.
    std::vector<BlockRun> scan() {
        uint64_t cursor = 0;
        auto runs = tracker->map().take(100, 100, cursor);
        for (const BlockRun& run : runs) tracker->map().emitted(run, ++position);
        tracker->all_read(position);
        return runs;
    }
    void store() {
        tracker->map().acknowledge(position);
        REQUIRE(tracker->acknowledged(position, position));
        producer.tick(0);  // seals
        producer.tick(0);  // clears
    }
    bool dirty() {
        for (uint64_t block = 0; block < kBlocks; ++block) {
            if (producer.disk(0).is_dirty(block)) return true;
        }
        return false;
    }
    uint64_t released() { return producer.disk(0).ring.tail; }
};

}  // namespace

TEST_CASE_METHOD(Host, "what was drained and stored leaves the driver's map, and not before") {
    write(3);
    drain_changes();
    CHECK(tracker->map().todo_blocks() == 0);
    producer.tick(0);
    CHECK(producer.disk(0).is_dirty(3));
    REQUIRE(tracker->acknowledged(position, position - 1));
    producer.tick(0);
    CHECK(producer.disk(0).is_dirty(3));
    CHECK(released() == 2);
    store();
    CHECK_FALSE(dirty());
}

TEST_CASE_METHOD(Host, "an owner killed between drain and release is offered the slots again") {
    write(3);
    auto change = tracker->next();
    while (*change && (*change)->kind != tracker::OrderedChange::Kind::write) {
        change = tracker->next();
    }
    attach();
    CHECK_FALSE(*tracker->scan_must_wait());
    unsigned writes = 0;
    for (auto again = tracker->next(); *again; again = tracker->next()) {
        writes += (*again)->kind == tracker::OrderedChange::Kind::write;
        tracker->emitted(++position);
    }
    CHECK(writes == 1);
}

TEST_CASE_METHOD(Host, "an owner killed after release and before stored leads to a scan of that") {
    write(3);
    drain_changes();
    REQUIRE(tracker->acknowledged(position, 0));
    REQUIRE(released() == 2);
    attach();
    CHECK(*tracker->scan_must_wait());
    drain_changes();
    REQUIRE(tracker->drain());
    CHECK_FALSE(*tracker->scan_must_wait());
    CHECK(scan() == std::vector<BlockRun>{{3, 1}});
    CHECK(dirty());
    store();
    CHECK_FALSE(dirty());
}

TEST_CASE_METHOD(Host, "a new session of the same process begins where the slots were given back") {
    write(3);
    drain_changes();
    REQUIRE(tracker->acknowledged(position, position));
    write(5);
    drain_changes();
    REQUIRE(tracker->restart());
    unsigned writes = 0;
    for (auto again = tracker->next(); *again; again = tracker->next()) {
        writes += (*again)->kind == tracker::OrderedChange::Kind::write;
    }
    CHECK(writes == 1);
    CHECK_FALSE(*tracker->scan_must_wait());
}

TEST_CASE_METHOD(Host, "blocks written in mode map are scanned once no such write is in flight") {
    for (uint64_t i = 0; i < kSlots; ++i) write(1);
    const Bytes data(512, std::byte{1});
    const uint64_t in_flight = producer.submit(0, HERALD_CBT_WRITE, 9 * 128, 1, data).id;
    write(7);
    drain_changes();
    drain_changes();
    CHECK(tracker->header().mode == HERALD_CBT_MODE_ORDERED);
    REQUIRE(tracker->drain());
    CHECK(tracker->map().todo_blocks() == 0);
    CHECK(*tracker->scan_must_wait());
    REQUIRE(tracker->end_pass());
    CHECK_FALSE(tracker->scan_was_exact());
    producer.complete(0, in_flight);
    REQUIRE(tracker->drain());
    CHECK_FALSE(*tracker->scan_must_wait());
    CHECK(scan() == std::vector<BlockRun>{{1, 1}, {7, 1}, {9, 1}});
    REQUIRE(tracker->end_pass());
    CHECK(tracker->scan_was_exact());
    CHECK(tracker->scan_was_passed());
    producer.tick(0);
    CHECK(dirty());
    store();
    CHECK_FALSE(dirty());
    // Not read a second time.
    REQUIRE(tracker->drain());
    CHECK(tracker->map().todo_blocks() == 0);
}

TEST_CASE_METHOD(Host, "a generation is not read before the slots that are older than it") {
    for (uint64_t i = 0; i < kSlots; ++i) write(1);
    write(1);  // without a slot
    REQUIRE(tracker->drain());
    CHECK(tracker->map().todo_blocks() == 0);
    CHECK(*tracker->scan_must_wait());
    drain_changes();
    drain_changes();
    REQUIRE(tracker->drain());
    CHECK(scan() == std::vector<BlockRun>{{1, 1}});
    // Also when it could be sealed at once.
    REQUIRE(tracker->acknowledged(position, position));
    producer.tick(0);
    write(2);
    REQUIRE(tracker->mark({5, 1}));
    REQUIRE(tracker->drain());
    CHECK(tracker->map().todo_blocks() == 0);
    drain_changes();
    REQUIRE(tracker->drain());
    CHECK(tracker->map().todo_blocks() == 2);
}

TEST_CASE_METHOD(Host, "a scan is passed only with the newest slot at its last read's end") {
    const Bytes data(512, std::byte{1});
    const uint64_t in_flight = producer.submit(0, HERALD_CBT_WRITE, 0, 1, data).id;
    drain_changes();
    REQUIRE(tracker->end_pass());
    CHECK(tracker->scan_was_exact());
    CHECK_FALSE(tracker->scan_was_passed());
    producer.complete(0, in_flight);
    CHECK_FALSE(tracker->scan_was_passed());
    drain_changes();
    CHECK(tracker->scan_was_passed());
}

TEST_CASE_METHOD(Host, "marks are the driver's, so that they outlive the process") {
    REQUIRE(tracker->mark({4, 2}));
    REQUIRE(tracker->mark({kBlocks - 1, 5}));
    attach();
    drain_changes();
    REQUIRE(tracker->drain());
    CHECK(scan() == std::vector<BlockRun>{{4, 2}, {kBlocks - 1, 1}});
}

TEST_CASE_METHOD(Host, "the continuity outlives process and power, of the same disk only") {
    tracker::Continuity continuity = tracker->continuity();
    continuity.session = Uuid::random();
    continuity.acked_position = 7;
    REQUIRE(tracker->set_continuity(continuity));
    attach();
    CHECK(tracker->continuity().session == continuity.session);
    tracker.reset();
    producer.power_cut(0);
    attach();
    CHECK(tracker->continuity().acked_position == 7);
    id = Uuid::random();
    attach();
    CHECK(tracker->continuity().session.is_nil());
    CHECK(tracker->continuity().disk == id);
}

TEST_CASE_METHOD(Host, "without a meta device the continuity is good until the process ends") {
    tracker.reset();
    producer.disk(0).has_meta = false;
    attach();
    tracker::Continuity continuity = tracker->continuity();
    continuity.session = Uuid::random();
    REQUIRE(tracker->set_continuity(continuity));
    CHECK(tracker->continuity().session == continuity.session);
    attach();
    CHECK(tracker->continuity().session.is_nil());
}

TEST_CASE_METHOD(Host, "after a power cut all that was not stored is scanned, and nothing else") {
    write(3);
    drain_changes();
    store();
    write(5);
    producer.submit(0, HERALD_CBT_WRITE, 6 * 128, 1, Bytes(512));
    tracker.reset();
    producer.power_cut(0);
    attach();
    CHECK_FALSE(tracker->gap());
    drain_changes();
    REQUIRE(tracker->drain());
    CHECK(scan() == std::vector<BlockRun>{{5, 2}});
}

TEST_CASE_METHOD(Host, "a gap has a name and goes when it was closed") {
    tracker.reset();
    producer.power_cut(0, HERALD_CBT_CAUSE_NOT_DETACHED);
    attach();
    REQUIRE(tracker->gap());
    CHECK(tracker->gap()->find("not by unprotect") != std::string::npos);
    REQUIRE(tracker->clear_gap());
    CHECK_FALSE(tracker->gap());
}

TEST_CASE_METHOD(Host, "a second process is refused") {
    auto second =
        CbtTracker::attach({[this] { return producer.open(); }, test::CbtProducer::device(0), id});
    REQUIRE_FALSE(second);
    CHECK(second.error().message.find("another process") != std::string::npos);
}

TEST_CASE_METHOD(Host, "what a meta device could not say of itself the reader remembers") {
    producer.disk(0).persistence = HERALD_CBT_PERSISTENCE_GIVEN_UP;
    producer.disk(0).publish();
    REQUIRE(tracker->release());
    CHECK_FALSE(tracker->gap());
    attach();  // the driver has tracked on all the time
    CHECK_FALSE(tracker->gap());
    // The meta device is back as it was, and says nothing.
    tracker.reset();
    producer.disk(0).persistence = HERALD_CBT_PERSISTENCE_ACTIVE;
    producer.power_cut(0, HERALD_CBT_CAUSE_NONE);
    attach();
    CHECK(tracker->gap() == tracker::cbt_cause_name(HERALD_CBT_CAUSE_PERSISTENCE_LOST));
    attach();
    CHECK(tracker->gap() == tracker::cbt_cause_name(HERALD_CBT_CAUSE_PERSISTENCE_LOST));
    REQUIRE(tracker->clear_gap());
    CHECK_FALSE(tracker->gap());
    attach();
    CHECK_FALSE(tracker->gap());
}
