// SPDX-License-Identifier: Apache-2.0
// Bodies that are not what they should be: nothing of them is stored, and the stream goes on.
#include "tests/catch.hpp"
#include "tests/e2e/bad_input/memory.h"
#include "tests/e2e/support/raw_tls.h"
#include "tests/e2e/support/test_stream.h"
#include "user/wire/messages.h"

using namespace herald;
using namespace herald::test;

namespace {

std::string code_of(const wire::HttpResponse& answer) { return wire::error_of(answer).code; }

uint64_t head_of(const TestSite& site, const Uuid& disk) {
    auto answer =
        site.client("operator")->send({"GET", "/v1/disks", {}, {}}, std::chrono::seconds(10));
    REQUIRE(answer);
    const auto disks = wire::decode_disks(as_text(answer->body));
    REQUIRE(disks);
    for (const auto& info : *disks)
        if (info.disk == disk) return info.head;
    return 0;
}

std::string put_head(const TestStream& stream, const hrl::Segment& segment, uint64_t bytes) {
    return fmt::format(
        "PUT /v1/disks/{}/segments/{} HTTP/1.1\r\nHost: x\r\n{}: {}\r\n{}: {}\r\n"
        "Content-Length: {}\r\n\r\n",
        to_string(stream.disk()), segment.header.first_position, wire::kHeaderEpoch,
        segment.header.epoch, wire::kHeaderDigest, to_hex(xxh3_128(segment.bytes).bytes), bytes);
}

}  // namespace

TEST_CASE("a segment with a flipped bit is refused wherever the bit is") {
    TestSite site;
    auto machine = site.client("machine");
    const uint64_t seed = test_seed();
    TestStream stream(site.machine(), 256u << 10, seed);
    REQUIRE(stream.open_session(*machine).status == 200);
    const auto segment = stream.next_segment("point");
    const std::string before = site.store_listing();

    std::mt19937_64 random(seed);
    const uint64_t bits = segment.bytes.size() * 8;
    const size_t rounds = by_tier(150, 1000, 20000);
    for (size_t round = 0; round < rounds; ++round) {
        // The first bytes, the last ones, and anywhere.
        uint64_t bit = random() % bits;
        if (round < 32) bit = round * 4;
        if (round >= 32 && round < 64) bit = bits - 1 - (round - 32) * 4;
        Bytes flipped = segment.bytes;
        flipped[bit / 8] ^= std::byte(1u << (bit % 8));
        // With the digest of the true bytes, and with its own, as a client with bad memory sends.
        const bool own_digest = round % 2 == 0;
        const auto answer =
            TestStream::put(*machine, stream.disk(), segment.header.first_position, stream.epoch(),
                            flipped, xxh3_128(own_digest ? flipped : segment.bytes));
        INFO("bit " << bit << (own_digest ? " with its own digest: " : ": ")
                    << as_text(answer.body));
        REQUIRE(answer.status >= 400);
        REQUIRE(answer.status < 500);
        REQUIRE_FALSE(code_of(answer).empty());
    }
    CHECK(site.store_listing() == before);
    CHECK(head_of(site, stream.disk()) == 0);
    CHECK(stream.put(*machine, segment).status == 200);
    CHECK(head_of(site, stream.disk()) == segment.last_position);
    check_server_memory(site);
}

TEST_CASE("a truncated upload is refused and leaves nothing") {
    TestSite site;
    auto machine = site.client("machine");
    const uint64_t seed = test_seed();
    TestStream stream(site.machine(), 256u << 10, seed);
    REQUIRE(stream.open_session(*machine).status == 200);
    const auto segment = stream.next_segment("point");
    const std::string before = site.store_listing();
    std::mt19937_64 random(seed);
    const auto tls = tls_files(site.site() / "machine", "machine");
    const size_t rounds = by_tier(30, 200, 2000);
    for (size_t round = 0; round < rounds; ++round) {
        const uint64_t length = random() % segment.bytes.size();
        const ByteView cut = ByteView(segment.bytes).first(length);
        if (round % 2 == 0) {
            // A whole request whose segment is cut.
            const auto answer =
                TestStream::put(*machine, stream.disk(), segment.header.first_position,
                                stream.epoch(), cut, xxh3_128(cut));
            INFO("cut at " << length << ": " << as_text(answer.body));
            REQUIRE(answer.status >= 400);
            REQUIRE(answer.status < 500);
        } else {
            // A client that goes away in the middle.
            auto raw = RawTls::connect(site.port(), tls);
            REQUIRE(raw);
            raw->write(put_head(stream, segment, segment.bytes.size()));
            raw->write(as_text(cut));
        }
    }
    CHECK(head_of(site, stream.disk()) == 0);
    CHECK(site.store_listing() == before);
    CHECK(stream.put(*machine, segment).status == 200);
    check_server_memory(site);
}

TEST_CASE("a replayed segment changes nothing, a replayed epoch or position is refused") {
    TestSite site;
    auto machine = site.client("machine");
    TestStream stream(site.machine(), 256u << 10, 1);
    REQUIRE(stream.open_session(*machine).status == 200);
    const auto first = stream.next_segment("point");
    REQUIRE(stream.put(*machine, first).status == 200);
    const std::string stored = site.store_listing();

    const auto again = stream.put(*machine, first);
    REQUIRE(again.status == 200);
    CHECK(wire::decode_segment_ack(as_text(again.body))->stored == first.last_position);
    CHECK(site.store_listing() == stored);

    // The same positions with other bytes.
    TestStream other(site.machine(), 256u << 10, 2);
    Bytes changed = first.bytes;
    const auto mixed = TestStream::put(*machine, stream.disk(), 1, stream.epoch(),
                                       other.next_segment("x").bytes, xxh3_128(changed));
    CHECK(mixed.status >= 400);
    // Another position than the segment's own.
    const auto moved = TestStream::put(*machine, stream.disk(), first.last_position + 1,
                                       stream.epoch(), first.bytes, xxh3_128(first.bytes));
    CHECK(moved.status >= 400);
    CHECK(moved.status < 500);
    // An epoch that was never granted.
    const auto future = TestStream::put(*machine, stream.disk(), 1, stream.epoch() + 1, first.bytes,
                                        xxh3_128(first.bytes));
    CHECK(future.status >= 400);
    CHECK(site.store_listing() == stored);

    // After a newer session the old epoch is fenced, for what it sends again and for what is new.
    const auto late = stream.next_segment("late");
    const wire::SessionRequest newer{Uuid::random(), "/dev/test on web1", "loop:x", 256u << 10,
                                     HERALD_BLOCK_BYTES};
    const std::string body = wire::encode(newer);
    auto granted = machine->send({"POST",
                                  "/v1/disks/" + to_string(stream.disk()) + "/session",
                                  {{"content-type", "application/json"}},
                                  as_bytes(body)},
                                 std::chrono::seconds(10));
    REQUIRE(granted);
    REQUIRE(granted->status == 200);
    const auto fenced = stream.put(*machine, late);
    CHECK(fenced.status == 409);
    CHECK(code_of(fenced) == wire::kErrorFenced);
    CHECK(site.store_listing() == stored);
    CHECK(head_of(site, stream.disk()) == first.last_position);
    check_server_memory(site);
}

TEST_CASE("a Content-Length of 10 GiB is refused before a byte of the body is taken") {
    TestSite site;
    auto machine = site.client("machine");
    TestStream stream(site.machine(), 256u << 10, 1);
    REQUIRE(stream.open_session(*machine).status == 200);
    const auto segment = stream.next_segment("point");
    const auto tls = tls_files(site.site() / "machine", "machine");
    for (const uint64_t bytes : {10ull << 30, (HERALD_SEGMENT_BYTES_MAX + 1ull), ~0ull >> 1}) {
        auto raw = RawTls::connect(site.port(), tls);
        REQUIRE(raw);
        REQUIRE(raw->write(put_head(stream, segment, bytes)));
        const std::string answer = raw->read_head(std::chrono::seconds(5));
        INFO(bytes << ": " << answer);
        CHECK(answer.starts_with("HTTP/1.1 413"));
    }
    for (const char* text : {"99999999999999999999999", "-1", "0x10", "1, 2", ""}) {
        auto raw = RawTls::connect(site.port(), tls);
        REQUIRE(raw);
        raw->write(
            fmt::format("PUT /v1/disks/{}/segments/1 HTTP/1.1\r\nHost: x\r\n"
                        "Content-Length: {}\r\n\r\n",
                        to_string(stream.disk()), text));
        const std::string answer = raw->read_head(std::chrono::seconds(5));
        INFO(text << ": " << answer);
        CHECK((answer.empty() || answer.starts_with("HTTP/1.1 4")));
    }
    CHECK(stream.put(*machine, segment).status == 200);
    check_server_memory(site);
}
