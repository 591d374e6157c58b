// SPDX-License-Identifier: Apache-2.0
#include "user/replicator/session.h"

#include "tests/catch.hpp"

using namespace herald;
using namespace herald::replicator;

namespace {

SegmentPtr segment(uint64_t first, uint64_t last, size_t bytes = 100) {
    auto made = std::make_shared<hrl::Segment>();
    made->header.first_position = first;
    made->last_position = last;
    made->bytes.resize(bytes);
    return made;
}

wire::SessionGrant grant(uint64_t head, uint32_t window = 8) {
    wire::SessionGrant made;
    made.epoch = 3;
    made.head = head;
    made.window_segments = window;
    return made;
}

struct Fixture {
    SessionOptions options;
    Session session{options, Uuid{}};

    uint64_t ask(uint64_t now = 0) {
        auto action = session.next(now);
        REQUIRE(action);
        return std::get<Session::Ask>(*action).ticket;
    }
    Session::Send send(uint64_t now = 0) {
        auto action = session.next(now);
        REQUIRE(action);
        return std::get<Session::Send>(*action);
    }
    void start(uint64_t head = 0, uint32_t window = 8) {
        session.granted(ask(), grant(head, window));
    }
};

const Failure kUnreachable{FailureKind::unreachable, "connection refused", 0};

}  // namespace

TEST_CASE_METHOD(Fixture, "session asks once, backs off with jitter, and asks again") {
    const uint64_t ticket = ask();
    REQUIRE_FALSE(session.next(0));
    session.failed(ticket, kUnreachable, 0, 0.5);
    REQUIRE(session.trouble()->kind == FailureKind::unreachable);
    REQUIRE_FALSE(session.next(149));
    REQUIRE(session.wake_ms() == 150);
    session.failed(ask(150), kUnreachable, 150, 0.0);
    REQUIRE_FALSE(session.next(349));
    for (uint64_t now = 350, i = 0; i < 40; ++i) {
        session.failed(ask(now), kUnreachable, now, 0.999);
        REQUIRE(*session.wake_ms() <= now + options.backoff_ms_max);
        now = *session.wake_ms();
    }
    REQUIRE(session.trouble_since_ms() == 0);
}

TEST_CASE_METHOD(Fixture, "session sends several segments at a time inside the server's window") {
    start(10, 3);
    for (uint64_t i = 0; i < 6; ++i) session.add(segment(11 + i, 11 + i));
    REQUIRE(send().segment->header.first_position == 11);
    REQUIRE(send().segment->header.first_position == 12);
    const auto third = send();
    REQUIRE(third.epoch == 3);
    REQUIRE_FALSE(session.next(0));
    session.acked(third.ticket, {10, 10, {}});
    REQUIRE_FALSE(session.next(0));
    REQUIRE(session.unstored_bytes() == 600);
}

TEST_CASE_METHOD(Fixture, "session keeps a segment until it is stored") {
    start();
    session.add(segment(1, 5));
    session.add(segment(6, 9));
    const auto first = send();
    const auto second = send();
    session.acked(second.ticket, {0, 0, {}});
    REQUIRE(session.unstored_segments() == 2);
    session.acked(first.ticket, {9, 5, {}});
    REQUIRE(session.received() == 9);
    REQUIRE(session.stored() == 5);
    REQUIRE(session.unstored_segments() == 1);
}

TEST_CASE_METHOD(Fixture, "session sends again what was delivered early and then lost") {
    start();
    session.add(segment(1, 1));
    session.add(segment(2, 2));
    const auto first = send();
    const auto second = send();
    session.acked(second.ticket, {0, 0, {}});
    session.acked(first.ticket, {1, 1, {}});
    REQUIRE(send().segment->header.first_position == 2);
}

TEST_CASE_METHOD(Fixture, "an acknowledgement of what was never sent ends the session") {
    start();
    session.add(segment(1, 4));
    const uint64_t ticket = send().ticket;
    SECTION("a position beyond it") { session.acked(ticket, {1000, 1000, {}}); }
    SECTION("a position within it") { session.acked(ticket, {3, 3, {}}); }
    SECTION("a clone's segment that ends at the same position") {
        session.acked(ticket, {4, 4, Uuid::random()});
    }
    SECTION("a clone's segment where the session began") {
        session.acked(ticket, {0, 0, Uuid::random()});
    }
    REQUIRE(session.ended()->kind == FailureKind::diverged);
    REQUIRE(session.stored() == 0);
}

TEST_CASE_METHOD(Fixture,
                 "a session that nobody vouches for does not look, and sends what it has") {
    start(7);
    REQUIRE_FALSE(session.next(1000));
    uint64_t now = 1000 + options.look_ms;
    for (int i = 0; i < 100; ++i) {
        REQUIRE_FALSE(session.next(now, false));
        REQUIRE(session.wake_ms() == now + options.unvouched_ms);
        now = *session.wake_ms();
    }
    SECTION("vouched for again it looks") {
        REQUIRE(std::holds_alternative<Session::Look>(*session.next(now)));
    }
    SECTION("a segment goes") {
        session.add(segment(8, 8));
        REQUIRE(std::holds_alternative<Session::Send>(*session.next(now, false)));
    }
}

TEST_CASE_METHOD(Fixture, "an idle session looks whether the server still knows it") {
    start(7);
    REQUIRE_FALSE(session.next(1000));
    REQUIRE(session.wake_ms() == 1000 + options.look_ms);
    const uint64_t now = 1000 + options.look_ms;
    auto action = session.next(now);
    REQUIRE(action);
    const auto look = std::get<Session::Look>(*action);
    REQUIRE(look.epoch == 3);
    REQUIRE_FALSE(session.next(now));
    SECTION("it does") {
        session.acked(look.ticket, {7, 7, {}});
        REQUIRE_FALSE(session.ended());
        REQUIRE_FALSE(session.next(now));
        REQUIRE(session.wake_ms() == now + options.look_ms);
    }
    SECTION("a newer session is known") {
        session.failed(look.ticket, failure_of(409, {wire::kErrorFenced, "", 0}), now, 0);
        REQUIRE(session.ended()->kind == FailureKind::fenced);
    }
    SECTION("the server went back, with no newer session") {
        session.acked(look.ticket, {6, 6, {}});
        REQUIRE(session.ended()->kind == FailureKind::diverged);
    }
    SECTION("no answer: it is asked again after the back-off") {
        session.failed(look.ticket, kUnreachable, now, 0);
        REQUIRE(session.trouble());
        REQUIRE_FALSE(session.next(now));
        action = session.next(*session.wake_ms());
        REQUIRE(std::holds_alternative<Session::Look>(*action));
    }
    SECTION("something to send does not wait for the answer") {
        session.add(segment(8, 8));
        session.acked(send(now).ticket, {8, 8, {}});
        session.acked(look.ticket, {7, 7, {}});
        REQUIRE_FALSE(session.ended());
        REQUIRE(session.stored() == 8);
    }
}

TEST_CASE_METHOD(Fixture, "an acknowledgement never goes back") {
    start();
    session.add(segment(1, 1));
    session.add(segment(2, 2));
    const auto first = send();
    const auto second = send();
    session.acked(second.ticket, {2, 2, {}});
    session.acked(first.ticket, {1, 1, {}});
    REQUIRE(session.stored() == 2);
}

TEST_CASE_METHOD(Fixture, "in trouble one upload at a time asks whether the server is back") {
    start();
    for (uint64_t i = 1; i <= 4; ++i) session.add(segment(i, i));
    const auto first = send();
    const auto second = send();
    session.failed(first.ticket, kUnreachable, 1000, 0);
    session.failed(second.ticket, kUnreachable, 1000, 0);
    const uint64_t wake = *session.wake_ms();
    REQUIRE(wake > 1000);
    REQUIRE_FALSE(session.next(wake - 1));
    const auto probe = send(wake);
    REQUIRE(probe.segment->header.first_position == 1);
    REQUIRE_FALSE(session.next(wake));
    session.acked(probe.ticket, {1, 1, {}});
    REQUIRE_FALSE(session.trouble());
    REQUIRE(session.next(wake));
    REQUIRE(session.next(wake));
}

TEST_CASE_METHOD(Fixture, "a full server is asked again when it said") {
    start();
    session.add(segment(1, 1));
    wire::ErrorBody body{wire::kErrorFull, "no space", 5};
    session.failed(send().ticket, failure_of(507, body), 0, 0.5);
    REQUIRE(session.trouble()->kind == FailureKind::full);
    REQUIRE_FALSE(session.next(4999));
    REQUIRE(session.next(5000));
    REQUIRE(session.unstored_segments() == 1);
}

TEST_CASE_METHOD(Fixture, "a fenced session sends nothing afterwards and believes nothing") {
    start();
    for (uint64_t i = 1; i <= 3; ++i) session.add(segment(i, i));
    const auto first = send();
    const auto second = send();
    session.failed(first.ticket, failure_of(409, {wire::kErrorFenced, "epoch 4", 0}), 0, 0);
    REQUIRE(session.ended()->kind == FailureKind::fenced);
    session.acked(second.ticket, {2, 2, {}});
    REQUIRE(session.stored() == 0);
    session.add(segment(4, 4));
    REQUIRE_FALSE(session.next(1'000'000));
    REQUIRE(session.unstored_bytes() == 0);
}

TEST_CASE_METHOD(Fixture, "a session fenced while asking ends") {
    session.failed(ask(), failure_of(409, {wire::kErrorFenced, "superseded", 0}), 0, 0);
    REQUIRE(session.ended()->kind == FailureKind::fenced);
}

TEST_CASE_METHOD(Fixture, "ahead waits for the head, and at the head ends the session") {
    start();
    session.add(segment(1, 1));
    session.add(segment(2, 2));
    const auto first = send();
    const auto second = send();
    const Failure ahead = failure_of(409, {wire::kErrorAhead, "window", 0});
    session.failed(second.ticket, ahead, 0, 0);
    REQUIRE_FALSE(session.ended());
    session.acked(first.ticket, {1, 1, {}});
    const auto again = send(1000);
    REQUIRE(again.segment->header.first_position == 2);
    session.failed(again.ticket, ahead, 1000, 0);
    REQUIRE(session.ended()->kind == FailureKind::diverged);
}

TEST_CASE_METHOD(Fixture, "a body that arrives damaged is sent again, a bounded number of times") {
    start();
    session.add(segment(1, 1));
    const Failure corrupt = failure_of(400, {wire::kErrorCorrupt, "digest", 0});
    uint64_t now = 0;
    for (unsigned i = 0; i < options.corrupt_max; ++i) {
        REQUIRE_FALSE(session.ended());
        session.failed(send(now).ticket, corrupt, now, 0);
        now += 100'000;
    }
    REQUIRE(session.ended()->kind == FailureKind::corrupt);
}

TEST_CASE_METHOD(Fixture, "late answers to tickets of before change nothing") {
    start();
    session.add(segment(1, 1));
    const auto first = send();
    session.failed(first.ticket, kUnreachable, 0, 0);
    const auto again = send(10'000);
    session.failed(first.ticket, failure_of(400, {wire::kErrorCorrupt, "", 0}), 10'000, 0);
    session.acked(again.ticket, {1, 1, {}});
    REQUIRE(session.unstored_segments() == 0);
}

TEST_CASE("failures are told apart by code, then by status") {
    REQUIRE(failure_of(503, {"", "", 0}).kind == FailureKind::busy);
    REQUIRE(failure_of(507, {"", "", 0}).kind == FailureKind::full);
    REQUIRE(failure_of(403, {wire::kErrorForbidden, "", 0}).kind == FailureKind::refused);
    REQUIRE(failure_of(409, {wire::kErrorDiverged, "", 0}).kind == FailureKind::diverged);
    REQUIRE(failure_of(404, {wire::kErrorNotFound, "", 0}).kind == FailureKind::diverged);
    REQUIRE(failure_of(404, {"", "", 0}).kind == FailureKind::refused);
    REQUIRE(failure_of(429, {"", "", 9}).retry_after_ms == 9000);
    REQUIRE(failure_of(429, {"", "", UINT64_MAX}).retry_after_ms == 3'600'000);
}
