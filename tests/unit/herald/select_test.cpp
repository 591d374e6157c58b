// SPDX-License-Identifier: Apache-2.0
#include "tools/herald/select.h"

#include <cerrno>

#include "tests/catch.hpp"

using namespace herald;
using namespace herald::cli;

namespace {

wire::DiskInfo disk_of(const char* id, const char* name, const char* identity) {
    wire::DiskInfo disk;
    disk.disk = Uuid::parse(id).value();
    disk.name = name;
    disk.identity = identity;
    return disk;
}

const std::vector<wire::DiskInfo> kDisks = {
    disk_of("aaaa1111-0000-4000-8000-000000000001", "/dev/sda on web1", "gpt:one"),
    disk_of("aaaa1111-0000-4000-8000-000000000002", "/dev/sda on web2", "gpt:two"),
    disk_of("bbbb2222-0000-4000-8000-000000000003", "/dev/sdb on web1", "wwn:three"),
};

wire::PointInfo point_of(const char* id, uint64_t position, uint64_t time_ns) {
    wire::PointInfo point;
    point.id = Uuid::parse(id).value();
    point.position = position;
    point.time_ns = time_ns;
    return point;
}

const std::vector<wire::PointInfo> kPoints = {
    point_of("11111111-0000-4000-8000-000000000001", 10, 1000),
    point_of("11111111-2222-4000-8000-000000000002", 20, 2000),
    point_of("33333333-0000-4000-8000-000000000003", 30, 3000),
};

bool names(const Error& error, const char* text) {
    return error.message.find(text) != std::string::npos;
}

}  // namespace

TEST_CASE("a disk is found by id, by a unique beginning of it, by name and by identity") {
    CHECK(select_disk(kDisks, "aaaa1111-0000-4000-8000-000000000002")->name == "/dev/sda on web2");
    CHECK(select_disk(kDisks, "AAAA1111-0000-4000-8000-000000000002")->name == "/dev/sda on web2");
    CHECK(select_disk(kDisks, "bbbb")->name == "/dev/sdb on web1");
    CHECK(select_disk(kDisks, "/dev/sda on web1")->identity == "gpt:one");
    CHECK(select_disk(kDisks, "/dev/sdb")->identity == "wwn:three");
    CHECK(select_disk(kDisks, "gpt:two")->name == "/dev/sda on web2");
}

TEST_CASE("a text that fits two disks is refused with both named") {
    for (const char* text : {"/dev/sda", "aaaa1111"}) {
        const auto disk = select_disk(kDisks, text);
        REQUIRE_FALSE(disk);
        CHECK(disk.error().sys == EINVAL);
        CHECK(names(disk.error(), "web1"));
        CHECK(names(disk.error(), "web2"));
        CHECK_FALSE(names(disk.error(), "/dev/sdb"));
    }
}

TEST_CASE("an unknown disk is refused with what there is") {
    const auto disk = select_disk(kDisks, "/dev/sdz");
    REQUIRE_FALSE(disk);
    CHECK(disk.error().sys == ENOENT);
    CHECK(names(disk.error(), "/dev/sdb on web1"));
    CHECK_FALSE(select_disk({}, "x"));
    // Too little of an id is no id.
    CHECK(select_disk(kDisks, "bbb").error().sys == ENOENT);
    CHECK(select_disk(kDisks, "").error().sys == ENOENT);
}

TEST_CASE("a point is found by id, beginning, as the latest, and by time") {
    const auto position = [](const PointChoice& choice) {
        return select_point(kPoints, choice).value().position;
    };
    CHECK(position({"33333333-0000-4000-8000-000000000003", {}, false}) == 30);
    CHECK(position({"3333", {}, false}) == 30);
    CHECK(position({"11111111-2", {}, false}) == 20);
    CHECK(position({"", {}, true}) == 30);
    CHECK(position({"", 2000, false}) == 20);
    CHECK(position({"", 2999, false}) == 20);
    CHECK(position({"", 9999, false}) == 30);
}

TEST_CASE("a time before every point and an ambiguous beginning are refused") {
    CHECK(select_point(kPoints, {"", 999, false}).error().sys == ENOENT);
    CHECK(select_point(kPoints, {"11111111", {}, false}).error().sys == EINVAL);
    CHECK(select_point(kPoints, {"4444", {}, false}).error().sys == ENOENT);
    CHECK(select_point({}, {"", {}, true}).error().sys == ENOENT);
}

TEST_CASE("of points with clocks that went back the newest at or before the time is taken") {
    const std::vector<wire::PointInfo> points = {
        point_of("11111111-0000-4000-8000-000000000001", 10, 5000),
        point_of("22222222-0000-4000-8000-000000000002", 20, 1000)};
    CHECK(select_point(points, {"", 6000, false})->position == 10);
    CHECK(select_point(points, {"", 4000, false})->position == 20);
}

TEST_CASE("short ids are as long as it takes to tell them apart") {
    CHECK(short_id_length(kPoints) == 10);
    CHECK(short_id_length(std::span(kPoints).subspan(1)) == 8);
    CHECK(short_id_length(kDisks) == 36);
}
