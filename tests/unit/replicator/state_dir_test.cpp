// SPDX-License-Identifier: Apache-2.0
#include "user/replicator/state_dir.h"

#include <fstream>

#include "tests/catch.hpp"
#include "tests/temp_dir.h"

using namespace herald;
using namespace herald::replicator;

TEST_CASE("state directory remembers the choice made last for each disk") {
    test::TempDir dir;
    {
        auto state = StateDir::open(dir.path() / "state");
        REQUIRE(state);
        REQUIRE((*state)->choose({"serial:1", "/dev/sda", true}));
        REQUIRE((*state)->choose({"serial:2", "/dev/sdb", true}));
        REQUIRE((*state)->choose({"serial:1", "/dev/sdc", false}));
    }
    auto state = StateDir::open(dir.path() / "state");
    REQUIRE(state);
    const auto chosen = (*state)->chosen();
    REQUIRE(chosen.size() == 2);
    REQUIRE(chosen[0].identity == "serial:2");
    REQUIRE(chosen[1].path == "/dev/sdc");
    REQUIRE_FALSE(chosen[1].protect);
}

TEST_CASE("a second replicator is refused the same state directory") {
    test::TempDir dir;
    auto first = StateDir::open(dir.path());
    REQUIRE(first);
    auto second = StateDir::open(dir.path());
    REQUIRE_FALSE(second);
    REQUIRE(second.error().kind == ErrorKind::operator_needed);
    first->reset();
    REQUIRE(StateDir::open(dir.path()));
}

TEST_CASE("the newest point of a disk outlives a restart, and a damaged file is no point") {
    test::TempDir dir;
    const Uuid disk = Uuid::random();
    PointReport point{Uuid::random(),
                      "before upgrade",
                      5,
                      77,
                      1.5,
                      0.25,
                      hrl::Consistency::crash,
                      {"vfat at /boot/efi: vfat has no freeze"}};
    {
        auto state = StateDir::open(dir.path());
        REQUIRE((*state)->save_last_point(disk, point));
    }
    auto state = StateDir::open(dir.path());
    const auto read = (*state)->last_point(disk);
    REQUIRE(read);
    REQUIRE(read->id == point.id);
    REQUIRE(read->name == point.name);
    REQUIRE(read->position == 77);
    REQUIRE(read->frozen_ms == 1.5);
    REQUIRE(read->consistency == hrl::Consistency::crash);
    REQUIRE(read->not_frozen == point.not_frozen);
    std::ofstream(dir.path() / ("point-" + to_string(disk) + ".json")) << "{";
    REQUIRE_FALSE((*state)->last_point(disk));
    (*state)->forget(disk);
    REQUIRE_FALSE((*state)->last_point(disk));
}

TEST_CASE("a damaged list of disks is refused, naming the file") {
    test::TempDir dir;
    std::ofstream(dir.path() / "disks.json") << "not json";
    auto state = StateDir::open(dir.path());
    REQUIRE_FALSE(state);
    REQUIRE(state.error().message.find("disks.json") != std::string::npos);
}
