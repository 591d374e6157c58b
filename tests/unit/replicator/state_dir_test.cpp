// SPDX-License-Identifier: Apache-2.0
#include "user/replicator/state_dir.h"

#include <fstream>

#include "tests/catch.hpp"
#include "tests/temp_dir.h"

using namespace herald;
using namespace herald::replicator;
using namespace std::chrono_literals;

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
        (*state)->save_last_point(disk, point);  // written before its end
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

TEST_CASE("a point is saved and an order dropped during a freeze, and written after it") {
    test::TempDir dir;
    const Uuid disk = Uuid::random();
    const auto soon = [] { return std::chrono::steady_clock::now() + 50ms; };
    auto state = StateDir::open(dir.path());
    REQUIRE(state);
    REQUIRE((*state)->save_order(disk, ResyncHow::full));
    {
        const FreezeLock::Freeze freeze((*state)->freeze_lock(), 1h, soon());
        REQUIRE(freeze.began());
        // Neither waits for the freeze's end.
        PointReport point;
        point.name = "p";
        (*state)->save_last_point(disk, point);
        (*state)->drop_order(disk, ResyncHow::full);
        REQUIRE_FALSE((*state)->written_by(soon()));
        REQUIRE_FALSE((*state)->last_point(disk));
    }
    REQUIRE((*state)->written_by(soon() + 10s));
    REQUIRE((*state)->last_point(disk)->name == "p");
    REQUIRE_FALSE((*state)->order(disk));
}

TEST_CASE("an order that comes before an older one is dropped stands") {
    test::TempDir dir;
    const Uuid disk = Uuid::random();
    auto state = StateDir::open(dir.path());
    REQUIRE(state);
    REQUIRE((*state)->save_order(disk, ResyncHow::full));
    (*state)->drop_order(disk, ResyncHow::full);
    REQUIRE((*state)->save_order(disk, ResyncHow::digest));
    REQUIRE((*state)->written_by(std::chrono::steady_clock::now() + 10s));
    REQUIRE((*state)->order(disk) == ResyncHow::digest);
}

TEST_CASE("a new path is remembered of a disk that is protected, and of no other") {
    test::TempDir dir;
    auto state = StateDir::open(dir.path());
    REQUIRE(state);
    REQUIRE((*state)->choose({"serial:1", "/dev/sda", true}));
    REQUIRE((*state)->choose({"serial:2", "/dev/sdb", false}));
    REQUIRE((*state)->found_at("serial:1", "/dev/sdc"));
    REQUIRE((*state)->found_at("serial:2", "/dev/sdd"));
    const auto chosen = (*state)->chosen();
    REQUIRE(chosen[0].path == "/dev/sdc");
    REQUIRE(chosen[1].path == "/dev/sdb");
    REQUIRE_FALSE(chosen[1].protect);
}

TEST_CASE("a damaged list of disks is refused, naming the file") {
    test::TempDir dir;
    std::ofstream(dir.path() / "disks.json") << "not json";
    auto state = StateDir::open(dir.path());
    REQUIRE_FALSE(state);
    REQUIRE(state.error().message.find("disks.json") != std::string::npos);
}
