// SPDX-License-Identifier: Apache-2.0
#include "user/replicator/disk_stream.h"

#include "tests/catch.hpp"
#include "tests/memory_tracker.h"
#include "user/hrl/segment_reader.h"

using namespace herald;
using namespace herald::replicator;

namespace {

constexpr uint64_t kBlock = HERALD_BLOCK_BYTES;
constexpr uint64_t kBlocks = 16;

struct Crash {};

struct Host {
    test::Pinned pinned{kBlocks};
    std::vector<uint8_t> disk = std::vector<uint8_t>(kBlocks);  // one byte stands for a block
    std::optional<test::MemoryTracker> tracker;
    std::optional<DiskStream> stream;
    std::string crash_at;
    uint64_t now = 1'000'000'000;

    void boot() {
        stream.reset();
        tracker.emplace(pinned);
        StreamOptions options;
        options.disk_bytes = kBlocks * kBlock;
        stream.emplace(
            options, *tracker, [] { return Uuid::random(); },
            [this](const char* step) {
                if (crash_at == step) throw Crash{};
            });
    }
    void write(uint64_t block, uint8_t value) {
        pinned.submit(block, block);
        disk[block] = value;
        pinned.complete(block);
    }
    Bytes read(const Chunk& chunk) {
        Bytes data(chunk.length);
        for (uint64_t i = 0; i < chunk.run.count; ++i) {
            std::fill_n(data.begin() + std::ptrdiff_t(i * kBlock), kBlock,
                        std::byte(disk[chunk.run.first + i]));
        }
        return data;
    }
    void read_all() {
        for (;;) {
            const auto chunks = stream->take(4 * kBlock);
            if (chunks.empty()) break;
            for (const Chunk& chunk : chunks)
                REQUIRE(stream->read_done(chunk.id, read(chunk), now));
        }
    }
    std::vector<hrl::RecordKind> kinds() {
        REQUIRE(stream->flush());
        std::vector<hrl::RecordKind> found;
        const auto closed = stream->take_closed();
        REQUIRE(closed);
        for (const SegmentPtr& segment : *closed) {
            REQUIRE(hrl::verify_segment(hrl::memory_source(segment->bytes, "segment"),
                                        [&](const hrl::Record& record) -> Result<void> {
                                            found.push_back(record.kind);
                                            return {};
                                        }));
        }
        return found;
    }
    Verdict start(const wire::SessionGrant& grant) {
        REQUIRE(stream->intend(Uuid::random()));
        auto verdict = stream->adopt(grant, now);
        REQUIRE(verdict);
        return *verdict;
    }
};

using K = hrl::RecordKind;

}  // namespace

TEST_CASE_METHOD(Host, "first session scans the whole disk between its marks") {
    boot();
    write(3, 7);
    REQUIRE(start({1, 0, {}, {}, 8, false}).baseline == Baseline::initial);
    REQUIRE(stream->next_cause() == hrl::ScanCause::initial);
    REQUIRE(*stream->begin_scan(false, now) == kBlocks);
    read_all();
    REQUIRE(*stream->settle());
    REQUIRE(stream->finish_scan(true, now));
    REQUIRE(kinds() == std::vector<K>{K::activation, K::scan_begin, K::zeroes, K::write, K::zeroes,
                                      K::zeroes, K::zeroes, K::scan_end});
    REQUIRE_FALSE(pinned.continuity.synced);
    REQUIRE(stream->acknowledged(stream->last_position()));
    REQUIRE(pinned.continuity.synced);
    for (uint64_t block = 0; block < kBlocks; ++block) REQUIRE_FALSE(pinned.dirty(block));
    REQUIRE(*stream->begin_scan(false, now) == 0);
    REQUIRE_FALSE(stream->scanning());
}

TEST_CASE_METHOD(Host, "bits stay until what was read is stored, also when written again") {
    boot();
    start({1, 0, {}, {}, 8, false});
    REQUIRE(stream->begin_scan(false, now));
    read_all();
    const uint64_t first_pass = stream->last_position();
    write(5, 1);
    REQUIRE(stream->settle());
    REQUIRE(stream->finish_scan(false, now));
    REQUIRE(*stream->begin_scan(false, now) == 1);
    read_all();
    REQUIRE(stream->acknowledged(first_pass));
    REQUIRE(pinned.dirty(5));
    REQUIRE_FALSE(pinned.dirty(4));
    REQUIRE(stream->acknowledged(stream->last_position()));
    REQUIRE_FALSE(pinned.dirty(5));
}

TEST_CASE_METHOD(Host, "a write open across the pass is not quiescent and is read again") {
    boot();
    start({1, 0, {}, {}, 8, false});
    pinned.submit(99, 2);
    REQUIRE(stream->begin_scan(false, now));
    read_all();
    REQUIRE_FALSE(*stream->settle());
    disk[2] = 9;
    pinned.complete(99);
    REQUIRE(*stream->drain() == 1);
    read_all();
    REQUIRE(*stream->settle());
}

TEST_CASE_METHOD(Host, "an unreadable block is named, stays dirty and forbids a quiescent end") {
    boot();
    start({1, 0, {}, {}, 8, false});
    REQUIRE(stream->begin_scan(false, now));
    bool failed = false;
    for (;;) {
        auto chunks = stream->take(16 * kBlock);
        if (chunks.empty()) break;
        for (const Chunk& chunk : chunks) {
            for (const Chunk& small : stream->read_failed(chunk.id)) {
                if (small.run.first == 6) {
                    REQUIRE(stream->read_failed(small.id).empty());
                    failed = true;
                } else {
                    REQUIRE(stream->read_done(small.id, read(small), now));
                }
            }
        }
    }
    REQUIRE(failed);
    REQUIRE_FALSE(*stream->settle());
    REQUIRE(stream->unreadable() == std::set<uint64_t>{6});
    REQUIRE(stream->finish_scan(false, now));
    REQUIRE(stream->acknowledged(stream->last_position()));
    REQUIRE(pinned.dirty(6));
    REQUIRE_FALSE(pinned.dirty(7));
    REQUIRE_FALSE(pinned.continuity.synced);
}

TEST_CASE_METHOD(Host, "a restarted process asks for the session it may already have") {
    boot();
    auto first = stream->intend(Uuid::random());
    boot();
    auto second = stream->intend(Uuid::random());
    REQUIRE(first->session == second->session);
    REQUIRE(stream->drop_intention());
    REQUIRE(stream->intend(Uuid::random())->session != first->session);
}

TEST_CASE_METHOD(Host, "a crash at any step of a compare makes the next session compare again") {
    for (const char* step : {"replicator.recovered", "replicator.distrusted"}) {
        pinned = test::Pinned(kBlocks);
        pinned.gap.reset();
        pinned.continuity.session = Uuid::random();
        pinned.continuity.acked_position = 50;
        pinned.continuity.synced = true;
        crash_at = step;
        boot();
        auto request = stream->intend(Uuid::random());
        const wire::SessionGrant foreign{7, 60, Uuid::random(), Uuid::random(), 8, true};
        REQUIRE_THROWS_AS(stream->adopt(foreign, now), Crash);
        crash_at.clear();
        boot();
        REQUIRE(stream->intend(Uuid::random()));
        wire::SessionGrant grant = foreign;
        if (std::string(step) == "replicator.distrusted") {
            grant.previous_session = request->session;
            grant.epoch = 8;
        }
        REQUIRE(stream->adopt(grant, now)->baseline == Baseline::compare);
        // Marked, not finished: still not trusted.
        stream->differs({1, 2});
        boot();
        auto third = stream->intend(Uuid::random());
        REQUIRE(stream->adopt({9, 61, {}, request->session, 8, true}, now)->baseline ==
                Baseline::compare);
        stream->differs({1, 2});
        REQUIRE(stream->baseline_done());
        boot();
        REQUIRE(stream->intend(Uuid::random()));
        REQUIRE(stream->adopt({10, 61, {}, third->session, 8, true}, now)->baseline ==
                Baseline::continues);
        REQUIRE(pinned.dirty(1));
    }
}

TEST_CASE_METHOD(Host, "a distrusted map is compared, with the cause in the stream") {
    boot();
    start({1, 0, {}, {}, 8, false});
    REQUIRE(stream->begin_scan(false, now));
    read_all();
    REQUIRE(stream->finish_scan(false, now));
    const Uuid session = pinned.continuity.session;
    REQUIRE(stream->distrust("ordered by an operator"));
    REQUIRE(stream->intend(Uuid::random()));
    auto verdict = stream->adopt({2, stream->last_position(), {}, session, 8, true}, now);
    REQUIRE(verdict->baseline == Baseline::compare);
    REQUIRE(verdict->gap == "ordered by an operator");
}

TEST_CASE_METHOD(Host, "a compare that finds nothing to send ends with the disk synchronised") {
    boot();
    pinned.gap = "the machine was restarted since this disk was tracked";
    auto request = stream->intend(Uuid::random());
    REQUIRE(request);
    REQUIRE(stream->adopt({2, 60, {}, Uuid::random(), 8, true}, now)->baseline ==
            Baseline::compare);
    REQUIRE(stream->baseline_done());
    REQUIRE(*stream->begin_scan(false, now) == 0);
    REQUIRE(stream->scanning());
    REQUIRE(stream->finish_scan(false, now));
    REQUIRE_FALSE(pinned.continuity.synced);
    REQUIRE(stream->acknowledged(stream->last_position()));
    REQUIRE(pinned.continuity.synced);
    // Once said, an idle disk sends nothing more.
    REQUIRE(*stream->begin_scan(false, now) == 0);
    REQUIRE_FALSE(stream->scanning());
}

TEST_CASE_METHOD(Host, "a gap that the tracker finds in a pass ends the session") {
    boot();
    start({1, 0, {}, {}, 8, false});
    pinned.gap = "programs were skipped";
    auto begun = stream->begin_scan(false, now);
    REQUIRE_FALSE(begun);
    REQUIRE(begun.error().kind == ErrorKind::resync);
}

TEST_CASE_METHOD(Host, "what a refused point leaves open is sent although nothing follows it") {
    boot();
    start({1, 0, {}, {}, 8, false});
    REQUIRE(stream->begin_scan(true, now));
    read_all();
    REQUIRE(*stream->settle());
    REQUIRE(stream->finish_scan(true, now));
    // No tag: the freeze did not hold. The disk stays idle.
    REQUIRE(*stream->begin_scan(false, now) == 0);
    REQUIRE_FALSE(stream->scanning());
    const auto closed = stream->take_closed();
    REQUIRE(closed);
    REQUIRE_FALSE(closed->empty());
    REQUIRE(closed->back()->last_position == stream->last_position());
    REQUIRE(stream->untaken_bytes() == 0);
}

TEST_CASE_METHOD(Host, "segments name the one before and continue its positions") {
    boot();
    const Uuid head = Uuid::random();
    pinned.gap.reset();
    pinned.continuity.session = Uuid::random();
    pinned.continuity.sent = {{20, head}};
    start({4, 20, head, pinned.continuity.session, 8, true});
    REQUIRE(stream->begin_scan(true, now));
    REQUIRE(stream->finish_scan(false, now));
    REQUIRE(stream->flush());
    const auto segments = *stream->take_closed();
    REQUIRE(pinned.continuity.sent == std::vector<tracker::SentSegment>{
                                          {20, head},
                                          {21, segments[0]->header.segment},
                                          {stream->last_position(), segments[1]->header.segment}});
    REQUIRE(segments.size() == 2);
    REQUIRE(segments[0]->header.previous_segment == head);
    REQUIRE(segments[0]->header.first_position == 21);
    REQUIRE(segments[0]->header.epoch == 4);
    REQUIRE(segments[1]->header.previous_segment == segments[0]->header.segment);
    REQUIRE(segments[1]->header.first_position == 22);
}

TEST_CASE_METHOD(Host, "no more is handed out than the ids that can be remembered") {
    boot();
    start({1, 0, {}, {}, 8, false});
    std::vector<SegmentPtr> out = *stream->take_closed();
    const auto take = [&] {
        const auto taken = *stream->take_closed();
        out.insert(out.end(), taken.begin(), taken.end());
    };
    for (unsigned i = 0; i < 2 * HERALD_SENT_SEGMENTS_MAX; ++i) {
        REQUIRE(stream->begin_scan(true, now));
        REQUIRE(stream->finish_scan(false, now));
        REQUIRE(stream->flush());
        take();
    }
    // One place is the head's that the session began with.
    REQUIRE(out.size() == HERALD_SENT_SEGMENTS_MAX - 1);
    REQUIRE(pinned.continuity.sent.size() == HERALD_SENT_SEGMENTS_MAX);
    REQUIRE(stream->untaken_bytes() > 0);
    // What is acknowledged makes room; the newest of it stays, as the server's end.
    REQUIRE(stream->acknowledged(out[9]->last_position));
    REQUIRE(stream->take_closed()->size() == 10);
    REQUIRE(pinned.continuity.sent.front() ==
            tracker::SentSegment{out[9]->last_position, out[9]->header.segment});
    REQUIRE(pinned.continuity.sent.size() == HERALD_SENT_SEGMENTS_MAX);
}

TEST_CASE_METHOD(Host, "a clone that wrote in the session's name is found by the next session") {
    boot();
    start({1, 0, {}, {}, 8, false});
    REQUIRE(stream->baseline_done());
    const std::vector<SegmentPtr> sent = *stream->take_closed();
    const Uuid session = pinned.continuity.session;
    boot();  // killed before it learned that the clone was faster
    wire::SessionGrant grant{2, 1, Uuid::random(), session, 8, true, 1};
    SECTION("the clone's segment is the head") {
        REQUIRE(start(grant).baseline == Baseline::compare);
    }
    SECTION("its own segment is the head") {
        grant.head_segment = sent[0]->header.segment;
        REQUIRE(start(grant).baseline == Baseline::continues);
    }
}
