// SPDX-License-Identifier: Apache-2.0
#include "user/wire/messages.h"

#include "herald/limits.h"
#include "tests/catch.hpp"

using namespace herald;
using namespace herald::wire;

namespace {

SessionRequest session_request() {
    SessionRequest m;
    m.session = Uuid::random();
    m.name = "/dev/sda on web1";
    m.identity = "wwn:0x5000c500a1b2c3d4";
    m.disk_bytes = 1ull << 30;
    m.block_bytes = 65536;
    return m;
}

std::string replaced(std::string text, std::string_view from, std::string_view to) {
    const auto at = text.find(from);
    REQUIRE(at != std::string::npos);
    return text.replace(at, from.size(), to);
}

}  // namespace

TEST_CASE("every message survives its JSON form") {
    const auto request = session_request();
    const auto request_back = decode_session_request(encode(request));
    REQUIRE(request_back);
    CHECK(request_back->session == request.session);
    CHECK(request_back->name == request.name);
    CHECK(request_back->identity == request.identity);
    CHECK(request_back->disk_bytes == request.disk_bytes);
    CHECK(request_back->block_bytes == request.block_bytes);

    SessionGrant grant{7, ~0ull, Uuid::random(), Uuid{}, 8, true, 6, true};
    const auto grant_back = decode_session_grant(encode(grant));
    REQUIRE(grant_back);
    CHECK(grant_back->epoch == 7);
    CHECK(grant_back->head == ~0ull);
    CHECK(grant_back->head_segment == grant.head_segment);
    CHECK(grant_back->previous_session.is_nil());
    CHECK(grant_back->window_segments == 8);
    CHECK(grant_back->digests);
    CHECK(grant_back->head_epoch == 6);
    CHECK(grant_back->complete);

    const Uuid head_segment = Uuid::random();
    const auto ack = decode_segment_ack(encode(SegmentAck{20, 10, head_segment}));
    REQUIRE(ack);
    CHECK((ack->received == 20 && ack->stored == 10));
    CHECK(ack->head_segment == head_segment);

    DiskInfo disk;
    disk.disk = Uuid::random();
    disk.machine = Uuid::random();
    disk.name = "n";
    disk.identity = "loop:/x";
    disk.disk_bytes = 4096;
    disk.newest_point_ns = 1;
    disk.state = "protected";
    disk.last_heard_ns = 77;
    disk.unheard_ms = 78;
    const auto disks = decode_disks(encode(std::vector{disk, disk}));
    REQUIRE(disks);
    REQUIRE(disks->size() == 2);
    CHECK((*disks)[1].disk == disk.disk);
    CHECK((*disks)[1].machine == disk.machine);
    CHECK((*disks)[1].state == "protected");
    CHECK((*disks)[1].last_heard_ns == 77);
    CHECK((*disks)[1].unheard_ms == 78);

    PointInfo point;
    point.id = Uuid::random();
    point.position = 99;
    point.kind = "manual";
    const auto points = decode_points(encode(std::vector{point}));
    REQUIRE(points);
    CHECK((*points)[0].id == point.id);
    CHECK((*points)[0].position == 99);

    SegmentInfo segment{1, 5, 2, Uuid::random(), 1000, 2000, std::string(32, 'a')};
    const auto segments = decode_segments(encode(std::vector{segment}));
    REQUIRE(segments);
    CHECK((*segments)[0].digest == segment.digest);
    CHECK((*segments)[0].last_position == 5);

    ServerStatus status{"0.1.0", 1, 2, "ok", 6, 7, "full", 3, 4, 5};
    const auto status_back = decode_server_status(encode(status));
    REQUIRE(status_back);
    CHECK(status_back->store_state == "ok");
    CHECK(status_back->requests == 5);
    CHECK(status_back->catalog_free_bytes == 6);
    CHECK(status_back->catalog_total_bytes == 7);
    CHECK(status_back->catalog_state == "full");
    CHECK(decode_points(R"({"points":[]})")->empty());
}

TEST_CASE("a message that is not what it claims is refused by the field's name") {
    const std::string good = encode(session_request());
    REQUIRE(decode_session_request(good));
    struct Bad {
        const char* from;
        std::string to;
        const char* names;
    };
    const Bad bads[] = {
        {"1073741824", "1073741825", "disk_bytes"},
        {"1073741824", "0", "disk_bytes"},
        {"1073741824", "-512", "disk_bytes"},
        {"1073741824", "512.5", "disk_bytes"},
        {"1073741824", "\"512\"", "disk_bytes"},
        {"1073741824", "70368744178176", "disk_bytes"},
        {"1073741824", "99999999999999999999999", "disk_bytes"},
        {"65536", "65537", "block_bytes"},
        {"65536", "4294967296", "block_bytes"},
        {"\"name\"", "\"nome\"", "name"},
        {"web1", std::string(256, 'x'), "name"},
        {"web1", "\\u001b[31m", "name"},
        {"wwn:0x5000c500a1b2c3d4", "", "identity"},
    };
    for (const Bad& bad : bads) {
        const auto decoded = decode_session_request(replaced(good, bad.from, bad.to));
        INFO(bad.from << " -> " << bad.to);
        REQUIRE_FALSE(decoded);
        CHECK(decoded.error().kind == ErrorKind::corrupt);
        CHECK(decoded.error().message.find(bad.names) != std::string::npos);
    }
    for (const char* text : {"", "{", "[]", "null", "7", "\"\\ud800\"", "{\"session\":\"\xff\"}"})
        CHECK_FALSE(decode_session_request(text));
    CHECK_FALSE(decode_session_request(good + " x"));
    CHECK_FALSE(decode_session_request(good + std::string(1 << 20, ' ')));
    const std::string segment = R"("head_segment":"3f0b7f5a-0a51-4c44-8f8e-0b1a0f6b8c7e")";
    CHECK_FALSE(decode_segment_ack(R"({"received":1,"stored":2,)" + segment + "}"));
    CHECK_FALSE(decode_segment_ack(R"({"received":2,"stored":2})"));
    CHECK_FALSE(decode_disks(R"({"disks":{}})"));
    CHECK_FALSE(decode_disks(R"({"disks":[1]})"));
    CHECK_FALSE(decode_disks(std::string(1 << 20, '[')));
    CHECK(decode_segment_ack(R"({"received":2,"stored":2,"later":"fields",)" + segment + "}"));
}

TEST_CASE("an error answer carries code, message and when to ask again") {
    const ServerResponse response = error_response(507, kErrorFull, "no\nspace", 30);
    CHECK(response.status == 507);
    CHECK(response.headers.at(kHeaderRetryAfter) == "30");
    HttpResponse seen{507, {}, response.body};
    CHECK(error_of(seen).code == kErrorFull);
    CHECK(error_of(seen).message == "no space");
    CHECK(error_of(seen).retry_after_s == 30);
    const Error error = to_error(seen, "put");
    CHECK(error.kind == ErrorKind::retry);
    CHECK(error.message == "put: no space (store_full)");
}

TEST_CASE("the kind of an error answer follows its code, then its status") {
    const auto kind = [](unsigned status, const char* code) {
        ServerResponse made = error_response(status, code, "m");
        return to_error(HttpResponse{status, {}, made.body}, "x").kind;
    };
    CHECK(kind(409, kErrorFenced) == ErrorKind::resync);
    CHECK(kind(409, kErrorDiverged) == ErrorKind::resync);
    CHECK(kind(409, kErrorAhead) == ErrorKind::retry);
    CHECK(kind(422, kErrorCorrupt) == ErrorKind::corrupt);
    CHECK(kind(403, kErrorForbidden) == ErrorKind::operator_needed);
    CHECK(kind(500, kErrorInternal) == ErrorKind::retry);
    const HttpResponse bare{503, {{kHeaderRetryAfter, "4"}}, {}};
    CHECK(error_of(bare).code == kErrorBusy);
    CHECK(error_of(bare).retry_after_s == 4);
    CHECK(to_error(bare, "x").kind == ErrorKind::retry);
}

TEST_CASE("a text that is not UTF-8 is sent with the byte replaced") {
    SessionRequest m = session_request();
    m.name = "disk \xff";
    const auto back = decode_session_request(encode(m));
    REQUIRE(back);
    CHECK(back->name == "disk \xef\xbf\xbd");
}

TEST_CASE("a number is all digits or refused") {
    CHECK(*parse_number("18446744073709551615") == ~0ull);
    for (const char* text : {"", "-1", "+1", " 1", "1 ", "0x1", "18446744073709551616", "1.0"})
        CHECK_FALSE(parse_number(text));
}
