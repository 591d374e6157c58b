// SPDX-License-Identifier: Apache-2.0
// What every Catalog must do. `reopen` closes the catalog it handed out before and opens it again
// over the same content; it is empty at first.
#pragma once

#include <functional>

#include "tests/catch.hpp"
#include "user/vault/catalog.h"

namespace herald::test {

inline wire::SessionRequest session_request(const Uuid& session) {
    wire::SessionRequest request;
    request.session = session;
    request.name = "/dev/sda on web1";
    request.identity = "wwn:1";
    request.disk_bytes = 1 << 20;
    request.block_bytes = HERALD_BLOCK_BYTES;
    return request;
}

inline vault::SegmentRow segment_row(uint64_t epoch, uint64_t first, uint64_t last,
                                     const Uuid& previous) {
    vault::SegmentRow row;
    row.first_position = first;
    row.last_position = last;
    row.epoch = epoch;
    row.segment = Uuid::random();
    row.previous_segment = previous;
    row.bytes = 100 * (last - first + 1);
    row.raw_bytes = 1000 * (last - first + 1);
    row.digest = xxh3_128(row.segment.bytes);
    row.object = "segments/" + to_string(row.segment);
    return row;
}

inline vault::TagVerdict tag_at(uint64_t position, std::string refusal = {}) {
    vault::TagVerdict verdict;
    verdict.tag.id = Uuid::random();
    verdict.tag.time_ns = position * 1000;
    verdict.tag.kind = hrl::TagKind::scheduled;
    verdict.tag.consistency = hrl::Consistency::application;
    verdict.tag.name = "tag at " + std::to_string(position);
    verdict.position = position;
    verdict.disk_bytes = 1 << 20;
    verdict.refusal = std::move(refusal);
    return verdict;
}

inline void catalog_suite(const std::function<vault::Catalog&()>& reopen) {
    using vault::CatalogOutcome;
    vault::Catalog* catalog = &reopen();
    const Uuid disk = Uuid::random();
    const Uuid machine = Uuid::random();
    const Uuid session = Uuid::random();

    const auto commit = [&](const vault::SegmentRow& row, std::vector<vault::TagVerdict> tags = {},
                            std::vector<vault::DigestRun> digests = {}) {
        const vault::StreamState state;
        vault::Commit request{disk, row, tags, &state, digests};
        auto outcomes = catalog->commit({&request, 1});
        REQUIRE(outcomes);
        REQUIRE(outcomes->size() == 1);
        return outcomes->front();
    };
    const auto grant = [&](const Uuid& which, const Uuid& whose) {
        auto reply = catalog->grant(disk, whose, session_request(which));
        REQUIRE(reply);
        return *reply;
    };

    SECTION("an empty catalog knows nothing") {
        CHECK(catalog->disks()->empty());
        CHECK_FALSE(*catalog->disk(disk));
        CHECK(catalog->points(disk)->empty());
        CHECK(catalog->segments(disk, 0, 10)->empty());
        CHECK_FALSE(*catalog->segment(disk, 1));
        CHECK(*catalog->digests(disk, 0, 2) == std::vector<Digest128>(2));
        CHECK(commit(segment_row(1, 1, 2, {})) == CatalogOutcome::not_found);
    }

    SECTION("the first grant registers the disk; the same session gets the same epoch again") {
        for (int i = 0; i < 2; ++i) {
            const auto reply = grant(session, machine);
            REQUIRE(reply.outcome == CatalogOutcome::done);
            CHECK(reply.grant.epoch == 1);
            CHECK(reply.grant.head == 0);
            CHECK(reply.grant.head_segment.is_nil());
            CHECK(reply.grant.previous_session.is_nil());
            CHECK_FALSE(reply.grant.digests);
            catalog = &reopen();
        }
        auto row = catalog->disk(disk);
        REQUIRE(row);
        REQUIRE(*row);
        CHECK((*row)->machine == machine);
        CHECK((*row)->name == "/dev/sda on web1");
        CHECK((*row)->identity == "wwn:1");
        CHECK((*row)->disk_bytes == 1 << 20);
        CHECK((*row)->session == session);
    }

    SECTION("a newer session gets the next epoch and fences the older one for good") {
        grant(session, machine);
        const auto row = segment_row(1, 1, 4, {});
        REQUIRE(commit(row) == CatalogOutcome::done);
        const Uuid newer = Uuid::random();
        const auto reply = grant(newer, machine);
        REQUIRE(reply.outcome == CatalogOutcome::done);
        CHECK(reply.grant.epoch == 2);
        CHECK(reply.grant.previous_session == session);
        CHECK(reply.grant.head == 4);
        CHECK(reply.grant.head_segment == row.segment);
        CHECK(grant(session, machine).outcome == CatalogOutcome::fenced);
        catalog = &reopen();
        CHECK(grant(session, machine).outcome == CatalogOutcome::fenced);
        CHECK(grant(newer, machine).grant.epoch == 2);
        CHECK(grant(newer, machine).grant.previous_session == session);
        CHECK(commit(segment_row(1, 5, 6, row.segment)) == CatalogOutcome::fenced);
        CHECK(commit(segment_row(3, 5, 6, row.segment)) == CatalogOutcome::fenced);
        CHECK((*catalog->disk(disk))->head == 4);
        CHECK(commit(segment_row(2, 5, 6, row.segment)) == CatalogOutcome::done);
    }

    SECTION("a session that has stored something is not granted again, to a clone for example") {
        REQUIRE(grant(session, machine).outcome == CatalogOutcome::done);
        REQUIRE(commit(segment_row(1, 1, 4, {})) == CatalogOutcome::done);
        CHECK(grant(session, machine).outcome == CatalogOutcome::fenced);
        catalog = &reopen();
        CHECK(grant(session, machine).outcome == CatalogOutcome::fenced);
        CHECK((*catalog->disk(disk))->epoch == 1);
        CHECK(grant(Uuid::random(), machine).grant.previous_session == session);
    }

    SECTION("another machine gets no grant for a disk and changes nothing") {
        grant(session, machine);
        CHECK(grant(Uuid::random(), Uuid::random()).outcome == CatalogOutcome::forbidden);
        CHECK(grant(session, Uuid::random()).outcome == CatalogOutcome::forbidden);
        CHECK((*catalog->disk(disk))->epoch == 1);
        CHECK((*catalog->disk(disk))->machine == machine);
    }

    SECTION("only what continues the head is committed") {
        grant(session, machine);
        CHECK(commit(segment_row(1, 2, 3, {})) == CatalogOutcome::diverged);
        CHECK(commit(segment_row(1, 1, 3, Uuid::random())) == CatalogOutcome::diverged);
        const auto first = segment_row(1, 1, 3, {});
        CHECK(commit(first) == CatalogOutcome::done);
        CHECK(commit(segment_row(1, 1, 3, {})) == CatalogOutcome::diverged);
        CHECK(commit(segment_row(1, 3, 5, first.segment)) == CatalogOutcome::diverged);
        CHECK(commit(segment_row(1, 5, 6, first.segment)) == CatalogOutcome::diverged);
        CHECK(commit(segment_row(1, 4, 6, {})) == CatalogOutcome::diverged);
        CHECK(commit(segment_row(1, 4, 3, first.segment)) == CatalogOutcome::diverged);
        catalog = &reopen();
        auto row = catalog->disk(disk);
        CHECK((*row)->head == 3);
        CHECK((*row)->head_segment == first.segment);
        CHECK((*row)->segments == 1);
        CHECK((*row)->stored_bytes == 300);
        CHECK((*row)->raw_bytes == 3000);
    }

    SECTION("the very same commit again is done already and counts once") {
        grant(session, machine);
        const auto row = segment_row(1, 1, 3, {});
        CHECK(commit(row, {tag_at(2)}) == CatalogOutcome::done);
        CHECK(commit(row, {tag_at(2)}) == CatalogOutcome::done);
        CHECK((*catalog->disk(disk))->segments == 1);
        CHECK((*catalog->disk(disk))->points == 1);
        CHECK((*catalog->disk(disk))->stored_bytes == 300);
    }

    SECTION("segments are listed by position, from any place, as many as asked for") {
        grant(session, machine);
        std::vector<vault::SegmentRow> rows;
        Uuid previous;
        for (uint64_t first = 1; first < 31; first += 3) {
            rows.push_back(segment_row(1, first, first + 2, previous));
            previous = rows.back().segment;
            REQUIRE(commit(rows.back()) == CatalogOutcome::done);
        }
        catalog = &reopen();
        CHECK(*catalog->segments(disk, 0, 100) == rows);
        for (uint64_t after = 0; after <= 31; ++after) {
            std::vector<vault::SegmentRow> expected;
            for (const auto& row : rows) {
                if (row.last_position > after && expected.size() < 4) expected.push_back(row);
            }
            CAPTURE(after);
            CHECK(*catalog->segments(disk, after, 4) == expected);
        }
        CHECK(catalog->segments(disk, ~0ull, 4)->empty());
        CHECK(catalog->segments(disk, 0, 0)->empty());
        CHECK(**catalog->segment(disk, 4) == rows[1]);
        CHECK_FALSE(*catalog->segment(disk, 5));
        CHECK_FALSE(*catalog->segment(Uuid::random(), 4));
    }

    SECTION("points and refused tags are kept apart, with all they say") {
        grant(session, machine);
        const auto one = segment_row(1, 1, 10, {});
        const auto two = segment_row(1, 11, 14, one.segment);
        const auto landed = tag_at(5);
        REQUIRE(commit(one, {tag_at(3, "a scan is under way"), landed}) == CatalogOutcome::done);
        REQUIRE(commit(two, {tag_at(12), tag_at(13, "again")}) == CatalogOutcome::done);
        catalog = &reopen();
        auto points = catalog->points(disk);
        REQUIRE(points);
        REQUIRE(points->size() == 2);
        const vault::PointRow& point = points->front();
        CHECK(point.id == landed.tag.id);
        CHECK(point.position == 5);
        CHECK(point.time_ns == 5000);
        CHECK(point.kind == hrl::TagKind::scheduled);
        CHECK(point.consistency == hrl::Consistency::application);
        CHECK(point.name == "tag at 5");
        CHECK(point.disk_bytes == 1 << 20);
        CHECK(point.sent_bytes == 1000);
        CHECK(point.raw_bytes == 10000);
        CHECK((*points)[1].sent_bytes == 400);
        CHECK((*points)[1].raw_bytes == 4000);
        auto refused = catalog->refused_tags(disk, 10);
        REQUIRE(refused);
        REQUIRE(refused->size() == 2);
        CHECK((*refused)[0].refusal == "again");
        CHECK((*refused)[1].refusal == "a scan is under way");
        CHECK(catalog->refused_tags(disk, 1)->size() == 1);
        CHECK((*catalog->disk(disk))->points == 2);
        CHECK((*catalog->disk(disk))->newest_point_ns == 12000);
    }

    SECTION("the stream's state comes back as it was committed") {
        grant(session, machine);
        vault::StreamState state;
        state.begin_segment(12345 * 512);
        const auto row = segment_row(1, 1, 1, {});
        vault::Commit request{disk, row, {}, &state, {}};
        REQUIRE(catalog->commit({&request, 1}));
        catalog = &reopen();
        CHECK((*catalog->disk(disk))->state == state);
    }

    SECTION("digests are kept by chunk; later ones override, unknown ones forget") {
        grant(session, machine);
        const Digest128 a = xxh3_128(as_bytes("a"));
        const Digest128 b = xxh3_128(as_bytes("b"));
        const auto one = segment_row(1, 1, 1, {});
        REQUIRE(commit(one, {}, {{250, 1000, a}, {260, 1, b}, {5000, 1, b}}) ==
                CatalogOutcome::done);
        auto digests = catalog->digests(disk, 240, 1100);
        REQUIRE(digests);
        for (uint64_t i = 0; i < 1100; ++i) {
            const uint64_t chunk = 240 + i;
            const Digest128 expected = chunk < 250 || chunk >= 1250 ? Digest128{}
                                       : chunk == 260               ? b
                                                                    : a;
            if ((*digests)[i] != expected) FAIL(chunk);
        }
        const auto two = segment_row(1, 2, 2, one.segment);
        REQUIRE(commit(two, {}, {{300, 600, {}}, {301, 1, b}}) == CatalogOutcome::done);
        catalog = &reopen();
        digests = catalog->digests(disk, 0, 5001);
        REQUIRE(digests);
        CHECK((*digests)[299] == a);
        CHECK((*digests)[300].is_unknown());
        CHECK((*digests)[301] == b);
        CHECK((*digests)[899].is_unknown());
        CHECK((*digests)[900] == a);
        CHECK((*digests)[5000] == b);
        CHECK(grant(Uuid::random(), machine).grant.digests);
        const auto three = segment_row(2, 3, 3, two.segment);
        REQUIRE(commit(three, {}, {{0, 1ull << 30, {}}}) == CatalogOutcome::done);
        CHECK(*catalog->digests(disk, 0, 5001) == std::vector<Digest128>(5001));
        CHECK(*catalog->digests(Uuid::random(), 250, 1) == std::vector<Digest128>(1));
    }

    SECTION("commits given together fail apart, and those of one disk go in order") {
        grant(session, machine);
        const Uuid other = Uuid::random();
        REQUIRE(catalog->grant(other, machine, session_request(Uuid::random())));
        const auto one = segment_row(1, 1, 2, {});
        const auto two = segment_row(1, 3, 4, one.segment);
        const auto stale = segment_row(7, 1, 2, {});
        const vault::StreamState state;
        const std::array<vault::Commit, 3> commits{vault::Commit{disk, one, {}, &state, {}},
                                                   vault::Commit{other, stale, {}, &state, {}},
                                                   vault::Commit{disk, two, {}, &state, {}}};
        auto outcomes = catalog->commit(commits);
        REQUIRE(outcomes);
        CHECK(*outcomes ==
              std::vector{CatalogOutcome::done, CatalogOutcome::fenced, CatalogOutcome::done});
        CHECK((*catalog->disk(disk))->head == 4);
        CHECK((*catalog->disk(other))->head == 0);
        CHECK(catalog->disks()->size() == 2);
    }

    SECTION("a restored catalog's epochs go up and end every session that was granted") {
        grant(session, machine);
        const Uuid other = Uuid::random();
        REQUIRE(catalog->grant(other, machine, session_request(Uuid::random())));
        const auto one = segment_row(1, 1, 2, {});
        REQUIRE(commit(one) == CatalogOutcome::done);
        const Uuid nobody = Uuid::random();
        REQUIRE(catalog->bump_epochs(1000, nobody));
        catalog = &reopen();
        CHECK((*catalog->disk(disk))->epoch == 1000);
        CHECK((*catalog->disk(other))->epoch == 1000);
        CHECK((*catalog->disk(disk))->head == 2);
        CHECK(commit(segment_row(1, 3, 3, one.segment)) == CatalogOutcome::fenced);
        CHECK(grant(session, machine).outcome == CatalogOutcome::fenced);
        CHECK(grant(nobody, Uuid::random()).outcome == CatalogOutcome::forbidden);
        const auto next = grant(Uuid::random(), machine);
        REQUIRE(next.outcome == CatalogOutcome::done);
        CHECK(next.grant.epoch == 1001);
        CHECK(next.grant.previous_session == nobody);
        CHECK(next.grant.head == 2);
        // Below what a disk has: still up.
        REQUIRE(catalog->bump_epochs(7, Uuid::random()));
        CHECK((*catalog->disk(disk))->epoch == 1002);
        CHECK((*catalog->disk(other))->epoch == 1001);
    }
}

}  // namespace herald::test
