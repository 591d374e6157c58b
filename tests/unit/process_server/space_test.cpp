// SPDX-License-Identifier: Apache-2.0
#include <random>

#include "tests/catch.hpp"
#include "tests/service_fixture.h"
#include "tests/small_filesystem.h"
#include "user/process_server/space_guard.h"

using namespace herald;
using process_server::space_state;
using process_server::SpaceLimits;
using process_server::SpaceState;

TEST_CASE("the state of a store follows its free share, with a floor and a plenty") {
    SpaceLimits limits;
    limits.free_bytes_min = 10;
    limits.free_bytes_plenty = 100000;
    const auto at = [&](uint64_t free, uint64_t object_bytes_max = 0) {
        limits.object_bytes_max = object_bytes_max;
        return space_state(limits, {10000, free});
    };
    CHECK(at(10000) == SpaceState::ok);
    CHECK(at(3100) == SpaceState::ok);
    CHECK(at(2900) == SpaceState::warning);
    CHECK(at(2400) == SpaceState::alert);
    CHECK(at(1900) == SpaceState::slow);
    CHECK(at(10) == SpaceState::slow);
    CHECK(at(9) == SpaceState::full);
    CHECK(at(100, 90) == SpaceState::slow);
    CHECK(at(100, 91) == SpaceState::full);
    CHECK(at(100, ~0ull) == SpaceState::full);
    limits.object_bytes_max = 0;
    CHECK(space_state(limits, {~0ull, 100000}) == SpaceState::ok);
    CHECK(space_state(limits, {0, 0}) == SpaceState::full);
    CHECK(space_state({}, {~0ull, (528ull << 20) - 1}) == SpaceState::full);
    CHECK(space_state({}, {~0ull, 528ull << 20}) == SpaceState::slow);
    // The same numbers of a catalog: its floor is its own, and no segment goes there.
    CHECK(space_state(process_server::catalog_limits({}), {~0ull, 16 << 20}) == SpaceState::slow);
}

TEST_CASE("a full store answers 507, keeps what was acknowledged and goes on by itself") {
    test::SmallFilesystem small(22 << 20);
    if (!small.mounted()) {
        std::puts("SKIPPED: mounting a small tmpfs needs root");
        return;
    }
    test::TempDir dir;
    // The catalog elsewhere: here it is the store that fills up.
    std::filesystem::create_directory_symlink(small.path(), dir.path() / "store");
    test::ServiceFixture fixture(dir.path());
    fixture.options.retry_after_s = 7;
    fixture.options.space.free_bytes_min = 1 << 20;
    REQUIRE(fixture.open());
    const Uuid machine = Uuid::random();
    const Uuid disk = Uuid::random();
    constexpr uint64_t kDisk = 64 << 20;
    REQUIRE(fixture.ask_session(machine, disk, Uuid::random(), kDisk).status == 200);
    test::StreamBuilder stream(machine, disk, kDisk);
    stream.activation().scan_begin().scan_end();
    // What is refused, and what operators read, is one verdict.
    const auto told = [&] {
        auto disks =
            wire::decode_disks(test::body_of(fixture.send(fixture.operator_head("/v1/disks"), {})));
        auto status = wire::decode_server_status(
            test::body_of(fixture.send(fixture.operator_head("/v1/status"), {})));
        REQUIRE(disks);
        REQUIRE(status);
        return disks->at(0).state + ", " + status->store_state;
    };
    uint64_t stored = 0;
    std::optional<hrl::Segment> refused;
    for (int i = 0; i < 100 && !refused; ++i) {
        // No byte pattern that would compress.
        Bytes noise(1 << 20);
        std::mt19937_64 random{uint64_t(i)};
        for (size_t at = 0; at < noise.size(); at += 8) store_le<uint64_t>(&noise[at], random());
        hrl::Segment segment = stream.write(0, noise).segment();
        const bool full = told().ends_with(", full");
        auto response = fixture.put(segment);
        CHECK((response.status != 200) == full);
        if (response.status == 200) {
            stored = segment.last_position;
            continue;
        }
        CHECK(test::outcome_of(response) == "507 store_full");
        CHECK(response.headers[wire::kHeaderRetryAfter] == "7");
        refused = std::move(segment);
    }
    REQUIRE(refused);
    REQUIRE(stored > 0);
    CHECK(told() == "paused, full");
    CHECK((*fixture.catalog().disk(disk))->head == stored);
    // Opening again on the full disk loses nothing.
    REQUIRE(fixture.open());
    CHECK((*fixture.catalog().disk(disk))->head == stored);
    CHECK(fixture.objects() == (*fixture.catalog().disk(disk))->segments);
    CHECK(test::outcome_of(fixture.put(*refused)) == "507 store_full");
    CHECK(told() == "paused, full");
    const std::string larger = "size=67108864";
    REQUIRE(::mount("tmpfs", small.path().c_str(), "tmpfs", MS_REMOUNT, larger.c_str()) == 0);
    CHECK(test::outcome_of(fixture.put(*refused)) ==
          "stored " + std::to_string(refused->last_position));
    CHECK(told().starts_with("protected, "));
}

TEST_CASE("a catalog without room is a full store: nothing is lost and it goes on by itself") {
    test::SmallFilesystem small(1 << 20);
    if (!small.mounted()) {
        std::puts("SKIPPED: mounting a small tmpfs needs root");
        return;
    }
    test::TempDir dir;
    test::ServiceFixture fixture(dir.path() / "store", small.path() / "catalog.sqlite");
    fixture.options.retry_after_s = 7;
    REQUIRE(fixture.open());
    const Uuid machine = Uuid::random();
    const Uuid disk = Uuid::random();
    constexpr uint64_t kDisk = 1ull << 30;
    REQUIRE(fixture.ask_session(machine, disk, Uuid::random(), kDisk).status == 200);
    test::StreamBuilder stream(machine, disk, kDisk);
    stream.activation().scan_begin().scan_end();
    const auto told = [&] {
        auto disks =
            wire::decode_disks(test::body_of(fixture.send(fixture.operator_head("/v1/disks"), {})));
        REQUIRE(disks);
        return disks->at(0);
    };
    uint64_t stored = 0;
    std::optional<hrl::Segment> refused;
    for (uint64_t i = 0; i < 1000 && !refused; ++i) {
        // Another row of digests each time.
        hrl::Segment segment =
            stream.write(i * 17 % 1024 * (kDisk / 1024), HERALD_BLOCK_BYTES, uint8_t(i)).segment();
        auto response = fixture.put(segment);
        if (response.status == 200) {
            stored = segment.last_position;
            continue;
        }
        CHECK(test::outcome_of(response) == "507 store_full");
        CHECK(response.headers[wire::kHeaderRetryAfter] == "7");
        refused = std::move(segment);
    }
    REQUIRE(refused);
    REQUIRE(stored > 0);
    CHECK(test::outcome_of(fixture.put(*refused)) == "507 store_full");
    // What is there can be read meanwhile. No limit says full here: the refusal itself is told.
    CHECK((*fixture.catalog().disk(disk))->head == stored);
    CHECK(told().state == "paused");
    CHECK(told().cause.find("the server cannot store more: ") == 0);
    // Its object waits for the row; a restart makes garbage of it.
    CHECK(fixture.objects() == (*fixture.catalog().disk(disk))->segments + 1);
    REQUIRE(fixture.open());
    CHECK((*fixture.catalog().disk(disk))->head == stored);
    CHECK(fixture.objects() == (*fixture.catalog().disk(disk))->segments);
    const std::string larger = "size=16777216";
    REQUIRE(::mount("tmpfs", small.path().c_str(), "tmpfs", MS_REMOUNT, larger.c_str()) == 0);
    CHECK(test::outcome_of(fixture.put(*refused)) ==
          "stored " + std::to_string(refused->last_position));
    CHECK(told().state == "protected");
}

TEST_CASE("below the floor a segment is refused before its body is read, and the status says so") {
    test::TempDir dir;
    test::ServiceFixture fixture(dir.path());
    REQUIRE(fixture.open());
    const Uuid machine = Uuid::random();
    const Uuid disk = Uuid::random();
    REQUIRE(fixture.ask_session(machine, disk, Uuid::random(), 1 << 20).status == 200);
    fixture.options.space.free_bytes_min = ~0ull >> 1;
    REQUIRE(fixture.open());
    auto head = fixture.machine_head(machine, "PUT", fixture.disk_path(disk, "segments/1"));
    head.headers[wire::kHeaderEpoch] = "1";
    head.content_bytes = 1000;
    auto admitted = fixture.service->admit(head);
    REQUIRE_FALSE(admitted);
    CHECK(test::outcome_of(admitted.error()) == "507 store_full");
    auto status = wire::decode_server_status(
        test::body_of(fixture.send(fixture.operator_head("/v1/status"), {})));
    REQUIRE(status);
    CHECK(status->store_state == "full");
}

TEST_CASE("a catalog's own filesystem that fills up shows in the status, and refuses beforehand") {
    test::SmallFilesystem small(24 << 20);
    if (!small.mounted()) {
        std::puts("SKIPPED: mounting a small tmpfs needs root");
        return;
    }
    test::TempDir dir;
    test::ServiceFixture fixture(dir.path() / "store", small.path() / "catalog.sqlite");
    // The store has its room, whatever the machine that runs this has.
    fixture.options.space = {.free_bytes_min = 20 << 20,
                             .free_bytes_plenty = 0,
                             .warning_percent = 3,
                             .alert_percent = 2,
                             .slow_percent = 1};
    REQUIRE(fixture.open());
    const auto status = [&] {
        auto found = wire::decode_server_status(
            test::body_of(fixture.send(fixture.operator_head("/v1/status"), {})));
        REQUIRE(found);
        return *found;
    };
    const Uuid machine = Uuid::random();
    const Uuid disk = Uuid::random();
    constexpr uint64_t kDisk = 64 << 20;
    REQUIRE(fixture.ask_session(machine, disk, Uuid::random(), kDisk).status == 200);
    test::StreamBuilder stream(machine, disk, kDisk);
    const auto one = stream.activation().write(0, 4096, 1).segment();
    const auto two = stream.write(0, 4096, 2).segment();
    CHECK(status().catalog_state == "ok");
    CHECK(status().catalog_total_bytes == 24 << 20);
    CHECK(test::outcome_of(fixture.put(one)) == "stored " + std::to_string(one.last_position));

    // Somebody else's file.
    REQUIRE(replace_file(small.path() / "other", Bytes(9 << 20, std::byte{1})));
    CHECK(status().store_state == "ok");
    CHECK(status().catalog_state == "full");
    CHECK(status().catalog_free_bytes < 16 << 20);
    const auto refused = fixture.put(two);
    CHECK(test::outcome_of(refused) == "507 store_full");
    CHECK(test::body_of(refused).find("catalog is full") != std::string::npos);
    // Before its object is made.
    CHECK(fixture.objects() == 1);
    std::filesystem::remove(small.path() / "other");
    CHECK(status().catalog_state == "ok");
    CHECK(test::outcome_of(fixture.put(two)) == "stored " + std::to_string(two.last_position));
}
