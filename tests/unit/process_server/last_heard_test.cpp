// SPDX-License-Identifier: Apache-2.0
#include "user/process_server/last_heard.h"

#include "tests/service_fixture.h"

using namespace herald;
using namespace std::chrono_literals;
using test::outcome_of;
using test::ServiceFixture;

namespace {

constexpr uint64_t kDisk = 16 * HERALD_BLOCK_BYTES;

// A server with one protected disk, and its clock in our hand.
struct Site {
    std::chrono::nanoseconds now = 1000s;
    test::TempDir dir;
    ServiceFixture server{dir.path()};
    Uuid machine = Uuid::random();
    Uuid disk = Uuid::random();
    test::StreamBuilder stream{machine, disk, kDisk};

    Site() {
        server.options.clock = [this] { return now; };
        REQUIRE(server.open());
        REQUIRE(session() == "200");
        stream.activation().scan_begin().write(0, 4096, 1).scan_end();
        REQUIRE(put() == "stored " + std::to_string(stream.position()));
    }
    std::string session(const Uuid& id = Uuid::random()) {
        return outcome_of(server.ask_session(machine, disk, id, kDisk));
    }
    std::string put() { return outcome_of(server.put(stream.segment())); }
    std::string ask(const char* what, const char* epoch = "1", const Uuid& by = {}) {
        auto head = ServiceFixture::machine_head(by.is_nil() ? machine : by, "GET",
                                                 ServiceFixture::disk_path(disk, what));
        head.headers[wire::kHeaderEpoch] = epoch;
        return outcome_of(server.send(head, {}));
    }
    wire::DiskInfo info() {
        auto disks = wire::decode_disks(
            test::body_of(server.send(ServiceFixture::operator_head("/v1/disks"), {})));
        REQUIRE(disks);
        REQUIRE(disks->size() == 1);
        return disks->front();
    }
};

}  // namespace

TEST_CASE("a disk whose machine says nothing turns silent, and back with its next word") {
    Site site;
    CHECK(site.info().state == "protected");
    CHECK(site.info().cause.empty());
    site.now += 89s;
    auto info = site.info();
    CHECK(info.state == "protected");
    CHECK(info.unheard_ms == 89'000);
    site.now += 1s;
    info = site.info();
    CHECK(info.state == "silent");
    CHECK(info.unheard_ms == 90'000);
    CHECK(info.last_heard_ns > 0);
    CHECK(info.cause.find("for 1 min 30 s") != std::string::npos);
    CHECK(info.cause.find("before, it was protected") != std::string::npos);

    // A look alone is enough: an idle disk has nothing else to say.
    REQUIRE(site.ask("head").starts_with("stored"));
    info = site.info();
    CHECK(info.state == "protected");
    CHECK(info.cause.empty());
    CHECK(info.unheard_ms == 0);
}

TEST_CASE("segments and sessions are words of the machine, too; digests are not") {
    Site site;
    const auto heard = [&] {
        const bool spoke = site.info().state != "silent" && site.info().unheard_ms == 0;
        site.now += 1h;
        return spoke && site.info().state == "silent";
    };
    site.now += 1h;
    REQUIRE(site.info().state == "silent");
    site.stream.write(0, 4096, 2);
    CHECK(site.put().starts_with("stored"));
    CHECK(heard());
    // Digests are given without an epoch: a superseded session may ask for them.
    CHECK(site.ask("digests") == "200");
    CHECK_FALSE(heard());
    CHECK(site.session() == "200");
    CHECK(heard());
}

TEST_CASE(
    "a segment refused for want of space is a word: the server is full, not the disk silent") {
    Site site;
    site.server.options.space.free_bytes_min = INT64_MAX;
    REQUIRE(site.server.open());
    REQUIRE(site.info().state == "silent");
    site.stream.write(0, 4096, 2);
    CHECK(site.put() == "507 store_full");
    CHECK(site.info().unheard_ms == 0);
    CHECK(site.info().state == "paused");
    CHECK(site.info().cause.starts_with("the server's store is full"));
}

TEST_CASE("a superseded session, a stranger and an operator do not speak for the disk") {
    Site site;
    const Uuid newest = Uuid::random();
    REQUIRE(site.session(newest) == "200");
    site.now += 1h;
    site.stream.write(0, 4096, 2);
    CHECK(site.put() == "409 fenced");
    CHECK(site.ask("head", "1") == "409 fenced");
    CHECK(site.ask("head", "2", Uuid::random()) == "403 forbidden");
    CHECK(site.ask("digests", "2", Uuid::random()) == "403 forbidden");
    CHECK(site.ask("head", "x") == "400 bad_request");
    (void)site.server.send(
        ServiceFixture::operator_head(ServiceFixture::disk_path(site.disk, "points")), {});
    CHECK(site.info().state == "silent");
    CHECK(site.info().unheard_ms == 3'600'000);
}

TEST_CASE("after the server's restart a disk is silent until its machine speaks") {
    Site site;
    REQUIRE(site.server.open());
    site.now += 5s;
    auto info = site.info();
    CHECK(info.state == "silent");
    CHECK(info.last_heard_ns == 0);
    CHECK(info.unheard_ms == 5'000);
    CHECK(info.cause.find("since this server started 5.0 s ago") != std::string::npos);
    REQUIRE(site.ask("head").starts_with("stored"));
    info = site.info();
    CHECK(info.state == "protected");
    CHECK(info.last_heard_ns > 0);
}

TEST_CASE("a silent disk's cause keeps why it was not protected before") {
    Site site;
    site.stream.activation();
    REQUIRE(site.put().starts_with("stored"));
    REQUIRE(site.info().state == "fuzzy");
    const std::string before = site.info().cause;
    REQUIRE_FALSE(before.empty());
    site.now += 2h;
    const auto info = site.info();
    CHECK(info.state == "silent");
    CHECK(info.cause.find("before, it was fuzzy (" + before + ")") != std::string::npos);
}

TEST_CASE("two words at once: the later one counts, whichever is noted first") {
    std::chrono::nanoseconds now = 100s;
    process_server::LastHeard last_heard(90s, [&] { return now; });
    wire::DiskInfo disk;
    disk.disk = Uuid::random();
    now = 120s;
    last_heard.hear(disk.disk);
    now = 110s;
    last_heard.hear(disk.disk);
    now = 130s;
    last_heard.judge(disk);
    CHECK(disk.unheard_ms == 10'000);
    // Another disk is not this one.
    disk.disk = Uuid::random();
    last_heard.judge(disk);
    CHECK(disk.last_heard_ns == 0);
    CHECK(disk.unheard_ms == 30'000);
}
