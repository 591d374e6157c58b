// SPDX-License-Identifier: Apache-2.0
#include "user/process_server/intake.h"

#include <algorithm>
#include <random>
#include <vector>

#include "herald/limits.h"
#include "tests/catch.hpp"

using namespace herald;
using process_server::DiskIntake;
using process_server::OfferedSegment;
using process_server::OfferVerdict;

namespace {

// Consecutive segments of `length` positions after `head`.
std::vector<OfferedSegment> chain(uint64_t epoch, uint64_t head, Uuid previous, size_t count,
                                  uint64_t length = 3) {
    std::vector<OfferedSegment> segments;
    for (size_t i = 0; i < count; ++i) {
        OfferedSegment segment;
        segment.epoch = epoch;
        segment.first = head + 1;
        segment.last = head + length;
        segment.segment = Uuid::random();
        segment.previous = previous;
        segment.digest = xxh3_128(segment.segment.bytes);
        head = segment.last;
        previous = segment.segment;
        segments.push_back(segment);
    }
    return segments;
}

}  // namespace

TEST_CASE("segments in order are committed one after the other") {
    DiskIntake intake(1, 0, {});
    for (const auto& segment : chain(1, 0, {}, 20)) {
        REQUIRE(intake.offer(segment) == OfferVerdict::commit);
        CHECK_FALSE(intake.next());
        REQUIRE(intake.arrived(segment));
        REQUIRE(intake.next() == segment);
        intake.committed(segment);
        CHECK(intake.head() == segment.last);
    }
}

TEST_CASE("segments ahead wait within the window, beyond it they are told to come later") {
    DiskIntake intake(1, 0, {});
    const auto segments = chain(1, 0, {}, HERALD_WINDOW_SEGMENTS + 2);
    for (size_t i = 1; i <= HERALD_WINDOW_SEGMENTS; ++i) {
        REQUIRE(intake.offer(segments[i]) == OfferVerdict::hold);
        REQUIRE(intake.arrived(segments[i]));
    }
    CHECK(intake.offer(segments.back()) == OfferVerdict::ahead);
    CHECK_FALSE(intake.next());
    // The head always finds room, or nothing could ever go on.
    REQUIRE(intake.offer(segments[0]) == OfferVerdict::commit);
    REQUIRE(intake.arrived(segments[0]));
    size_t committed = 0;
    while (const auto next = intake.next()) {
        intake.committed(*next);
        ++committed;
    }
    CHECK(committed == HERALD_WINDOW_SEGMENTS + 1);
    CHECK(intake.offer(segments.back()) == OfferVerdict::commit);
}

TEST_CASE("the same segment again is a duplicate, or in progress while it is being stored") {
    DiskIntake intake(1, 0, {});
    const auto segments = chain(1, 0, {}, 2);
    REQUIRE(intake.offer(segments[1]) == OfferVerdict::hold);
    CHECK(intake.offer(segments[1]) == OfferVerdict::in_progress);
    REQUIRE(intake.arrived(segments[1]));
    CHECK(intake.offer(segments[1]) == OfferVerdict::duplicate);
    REQUIRE(intake.offer(segments[0]) == OfferVerdict::commit);
    REQUIRE(intake.arrived(segments[0]));
    intake.committed(segments[0]);
    CHECK(intake.offer(segments[0], segments[0]) == OfferVerdict::duplicate);
    auto changed = segments[0];
    changed.digest = {};
    CHECK(intake.offer(changed, segments[0]) == OfferVerdict::diverged);
    CHECK(intake.offer(segments[0]) == OfferVerdict::diverged);
}

TEST_CASE("an abandoned slot is free again") {
    DiskIntake intake(1, 0, {});
    const auto segments = chain(1, 0, {}, 1);
    REQUIRE(intake.offer(segments[0]) == OfferVerdict::commit);
    intake.abandon(segments[0]);
    CHECK(intake.slots() == 0);
    CHECK_FALSE(intake.arrived(segments[0]));
    CHECK(intake.offer(segments[0]) == OfferVerdict::commit);
}

TEST_CASE("only the newest epoch is taken, and what was under way before it is gone") {
    DiskIntake intake(3, 0, {});
    const auto old = chain(3, 0, {}, 2);
    REQUIRE(intake.offer(old[0]) == OfferVerdict::commit);
    REQUIRE(intake.offer(old[1]) == OfferVerdict::hold);
    REQUIRE(intake.arrived(old[1]));
    intake.new_epoch(4);
    CHECK_FALSE(intake.arrived(old[0]));
    CHECK_FALSE(intake.next());
    CHECK(intake.slots() == 0);
    CHECK(intake.offer(old[0]) == OfferVerdict::fenced);
    CHECK(intake.offer(chain(5, 0, {}, 1)[0]) == OfferVerdict::fenced);
    CHECK(intake.offer(chain(4, 0, {}, 1)[0]) == OfferVerdict::commit);
    // The same session granted again changes nothing.
    intake.new_epoch(4);
    CHECK(intake.slots() == 1);
}

TEST_CASE("before any session everything is fenced") {
    DiskIntake intake(0, 0, {});
    CHECK(intake.offer(chain(0, 0, {}, 1)[0]) == OfferVerdict::fenced);
}

TEST_CASE("a segment that overlaps or does not follow by id diverges") {
    const Uuid head_segment = Uuid::random();
    DiskIntake intake(1, 10, head_segment);
    CHECK(intake.offer(chain(1, 10, Uuid::random(), 1)[0]) == OfferVerdict::diverged);
    CHECK(intake.offer(chain(1, 8, head_segment, 1)[0]) == OfferVerdict::diverged);
    auto empty = chain(1, 10, head_segment, 1)[0];
    empty.last = 10;
    CHECK(intake.offer(empty) == OfferVerdict::diverged);
    const auto held = chain(1, 13, Uuid::random(), 1)[0];  // 14 to 16
    REQUIRE(intake.offer(held) == OfferVerdict::hold);
    CHECK(intake.offer(chain(1, 10, head_segment, 1, 4)[0]) == OfferVerdict::diverged);
    CHECK(intake.offer(chain(1, 14, head_segment, 1)[0]) == OfferVerdict::diverged);
    CHECK(intake.offer(chain(1, 13, head_segment, 1)[0]) == OfferVerdict::diverged);
    // Held, and then it turns out that it does not follow what came before it.
    const auto first = chain(1, 10, head_segment, 1)[0];
    REQUIRE(intake.arrived(held));
    REQUIRE(intake.offer(first) == OfferVerdict::commit);
    REQUIRE(intake.arrived(first));
    CHECK_FALSE(intake.take_diverged());
    intake.committed(first);
    CHECK_FALSE(intake.next());
    CHECK(intake.take_diverged() == held);
    CHECK_FALSE(intake.take_diverged());
    CHECK(intake.offer(held) == OfferVerdict::diverged);
}

TEST_CASE("in any order, with losses, repeats and failures, the stream comes out whole") {
    const char* given = std::getenv("HERALD_SEED");
    const uint64_t seed = given ? std::strtoull(given, nullptr, 0) : 20;
    INFO("HERALD_SEED=" << seed);
    std::mt19937_64 random(seed);
    for (int round = 0; round < 200; ++round) {
        DiskIntake intake(1, 0, {});
        const auto segments = chain(1, 0, {}, 40, 1 + random() % 3);
        std::vector<OfferedSegment> uploading;
        size_t committed = 0;
        for (int step = 0; committed < segments.size(); ++step) {
            REQUIRE(step < 100000);
            if (!uploading.empty() && random() % 2) {
                const size_t which = random() % uploading.size();
                const auto segment = uploading[which];
                uploading.erase(uploading.begin() + long(which));
                if (random() % 4 == 0) {
                    intake.abandon(segment);
                    continue;
                }
                REQUIRE(intake.arrived(segment));
                while (const auto next = intake.next()) {
                    REQUIRE(*next == segments[committed]);
                    if (random() % 8 == 0) break;  // the commit failed; later again
                    intake.committed(*next);
                    ++committed;
                }
                continue;
            }
            const size_t which = std::min(committed + random() % 12, segments.size() - 1);
            const auto& segment = segments[which];
            std::optional<OfferedSegment> stored;
            if (segment.first <= intake.head()) stored = segment;
            switch (intake.offer(segment, stored)) {
                case OfferVerdict::commit:
                case OfferVerdict::hold:
                    uploading.push_back(segment);
                    break;
                case OfferVerdict::duplicate:
                    if (const auto next = intake.next()) {
                        intake.committed(*next);
                        ++committed;
                    }
                    break;
                case OfferVerdict::in_progress:
                case OfferVerdict::ahead:
                    break;
                default:
                    FAIL("an honest stream was refused");
            }
            REQUIRE(intake.slots() <= HERALD_WINDOW_SEGMENTS + 1);
        }
        CHECK(intake.head_segment() == segments.back().segment);
    }
}
