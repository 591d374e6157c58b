// SPDX-License-Identifier: Apache-2.0
#include "user/replicator/uploader.h"

#include "tests/catch.hpp"
#include "tests/unit/wire/fixture.h"
#include "user/base/digest.h"

using namespace herald;
using namespace herald::replicator;
using herald::test::certificates;
using herald::test::wait_until;
using namespace std::chrono_literals;

namespace {

constexpr uint64_t kHead = 7;

wire::ServerResponse acknowledge(uint64_t position) {
    return wire::json_response(200, wire::encode(wire::SegmentAck{position, position, {}}));
}

SegmentPtr segment() {
    auto made = std::make_shared<hrl::Segment>();
    made->header.first_position = kHead + 1;
    made->last_position = kHead + 1;
    made->bytes = Bytes(1000, std::byte{1});
    made->raw_bytes = 3000;
    return made;
}

// A server that grants every session and acknowledges every segment, and a disk's uploader.
struct Fixture {
    const Uuid disk = Uuid::random();
    std::atomic<bool> vouched{true};
    std::atomic<int> vouched_asked{0};
    std::atomic<int> changes{0};
    std::atomic<int> looks{0};
    std::atomic<int> puts{0};
    std::atomic<uint64_t> epoch{3};
    std::function<void(const wire::SessionRequest&)> before_grant;
    // Last, so that its threads end before what they use.
    test::TestServer server;
    std::unique_ptr<Uploader> uploader;

    Fixture() {
        server.handler.answer = [this](const wire::RequestHead& head, Bytes body) {
            return answer(head, body);
        };
        server.handler.put_bytes_max = 1 << 20;
        UploaderOptions options{
            {"127.0.0.1", server.server->port()}, certificates().context("machine"), disk, {}};
        options.session.look_ms = 30;
        options.session.unvouched_ms = 10;
        uploader = std::make_unique<Uploader>(
            std::move(options), [this] { ++changes; },
            [this] {
                ++vouched_asked;
                return vouched.load();
            });
    }

    wire::ServerResponse answer(const wire::RequestHead& head, const Bytes& body) {
        const std::string at = "/v1/disks/" + to_string(disk);
        if (head.method == "PUT") {
            const bool whole = head.path == at + "/segments/8" &&
                               head.headers.at(wire::kHeaderEpoch) == "3" &&
                               head.headers.at(wire::kHeaderDigest) == to_hex(xxh3_128(body).bytes);
            ++puts;
            return whole ? acknowledge(kHead + 1)
                         : wire::error_response(400, wire::kErrorBadRequest, "not what was sent");
        }
        if (head.path == at + "/head") {
            ++looks;
            return acknowledge(kHead);
        }
        auto request = wire::decode_session_request(as_text(body));
        if (head.path != at + "/session" || !request) {
            return wire::error_response(404, wire::kErrorNotFound, head.path);
        }
        wire::SessionGrant grant;
        grant.epoch = epoch++;
        grant.head = kHead;
        grant.window_segments = 8;
        if (before_grant) before_grant(*request);
        return wire::json_response(200, wire::encode(grant));
    }

    void begin(const Uuid& session = Uuid::random()) {
        wire::SessionRequest request;
        request.session = session;
        request.name = "disk";
        request.identity = "wwn:1";
        request.disk_bytes = 1 << 20;
        request.block_bytes = HERALD_BLOCK_BYTES;
        uploader->begin(request);
    }
    bool is_granted() {
        return wait_until([&] { return uploader->view().grant.has_value(); });
    }
    // Time to look came so often since now, whatever the host does meanwhile.
    bool was_asked_again(int times) {
        const int end = vouched_asked + times;
        return wait_until([&] { return vouched_asked >= end; });
    }
};

}  // namespace

TEST_CASE_METHOD(Fixture, "an idle disk's uploader speaks to the server while it is vouched for") {
    vouched = false;
    begin();
    REQUIRE(is_granted());
    REQUIRE(was_asked_again(20));
    CHECK(looks == 0);
    vouched = true;
    CHECK(wait_until([&] { return looks >= 3; }));
    vouched = false;
    // One may have been under way.
    REQUIRE(was_asked_again(5));
    const int before = looks;
    REQUIRE(was_asked_again(20));
    CHECK(looks == before);
    CHECK_FALSE(uploader->view().trouble);
}

TEST_CASE_METHOD(Fixture, "what was read of a disk is sent whether it is vouched for or not") {
    vouched = false;
    begin();
    REQUIRE(is_granted());
    const int before = changes;
    uploader->add(segment());
    CHECK(wait_until([&] { return uploader->view().stored == kHead + 1; }));
    CHECK(puts == 1);
    const auto view = uploader->view();
    CHECK(view.sent_bytes == 1000);
    CHECK(view.raw_bytes == 3000);
    CHECK(view.unstored_bytes == 0);
    CHECK(wait_until([&] { return changes > before; }));
}

TEST_CASE_METHOD(Fixture, "a grant that comes after another session began changes nothing") {
    const Uuid first = Uuid::random();
    std::atomic<int> asked{0};
    std::atomic<bool> answer_first{false};
    std::atomic<bool> answer_second{false};
    before_grant = [&](const wire::SessionRequest& request) {
        ++asked;
        const auto& may = request.session == first ? answer_first : answer_second;
        (void)wait_until([&] { return may.load(); });
    };
    vouched = false;
    begin(first);
    REQUIRE(wait_until([&] { return asked == 1; }));
    begin();
    REQUIRE(wait_until([&] { return asked == 2; }));
    answer_first = true;
    // The thread that asked has taken the answer.
    REQUIRE(wait_until([&] { return changes == 1; }));
    CHECK_FALSE(uploader->view().grant);
    answer_second = true;
    REQUIRE(is_granted());
    CHECK(uploader->view().grant->epoch == 4);
}

TEST_CASE_METHOD(Fixture, "stop ends a request under way, and nothing is asked for afterwards") {
    std::atomic<bool> asked{false};
    std::atomic<bool> go_on{false};
    before_grant = [&](const wire::SessionRequest&) {
        asked = true;
        (void)wait_until([&] { return go_on.load(); }, 60s);
    };
    begin();
    REQUIRE(wait_until([&] { return asked.load(); }));
    const auto began = std::chrono::steady_clock::now();
    uploader->stop();
    const int before = server.handler.handled;
    CHECK_FALSE(uploader->get("/v1/disks/x/digests", 100));
    // Its threads are waited for: they do not wait for the answer, for which they would have 15 s.
    uploader.reset();
    CHECK(std::chrono::steady_clock::now() - began < 10s);
    CHECK(server.handler.handled == before);
    go_on = true;
}
