// SPDX-License-Identifier: Apache-2.0
#include "user/agent/disk_identity.h"

#include <iostream>

#include "tests/catch.hpp"
#include "tests/e2e/loop_disk.h"

using namespace herald;
using namespace herald::agent;
using namespace herald::test;

#define NEEDS_LOOP_DISKS()                                                \
    if (const std::string why = missing_for_loop_disks(); !why.empty()) { \
        std::cout << "SKIPPED: " << why << "\n";                          \
        return;                                                           \
    }

TEST_CASE("a loop disk is known by its backing file, whatever its number") {
    NEEDS_LOOP_DISKS();
    TempDir dir;
    std::string identity, name;
    {
        LoopDisk disk(dir.path() / "disk", "8M");
        auto found = identify(disk.device());
        REQUIRE(found);
        CHECK(found->identity == "loop:" + (dir.path() / "disk").native());
        CHECK(found->bytes == 8u << 20);
        CHECK(found->kernel_name == disk.name());
        CHECK(found->node() == disk.device());
        CHECK(found->logical_block_bytes == 512);
        CHECK(found->partitions.empty());
        CHECK_FALSE(found->read_only);
        const Uuid machine = Uuid::random();
        CHECK(found->disk_id(machine) == Uuid::from_name(machine, found->identity));

        // Through a link, as /dev/disk/by-id has them.
        std::filesystem::create_symlink(disk.device(), dir.path() / "link");
        auto linked = identify(dir.path() / "link");
        REQUIRE(linked);
        CHECK(linked->kernel_name == disk.name());
        CHECK(linked->path == dir.path() / "link");

        // Another attachment of the same name is another disk sequence number.
        LoopDisk second(dir.path() / "other", "8M");
        auto other = identify(second.device());
        REQUIRE(other);
        CHECK(other->identity != found->identity);
        if (found->diskseq != 0) CHECK(other->diskseq != found->diskseq);
    }
}

TEST_CASE("a partition is refused with the disk to protect, and is listed in it") {
    NEEDS_LOOP_DISKS();
    TempDir dir;
    LoopDisk disk(dir.path() / "disk", "64M");
    const std::string partition = disk.add_partition(1, 20);
    auto refused = identify(partition);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().message.find("protect the whole disk: " + disk.device()) !=
          std::string::npos);
    auto found = identify(disk.device());
    REQUIRE(found);
    REQUIRE(found->partitions.size() == 1);
    CHECK("/dev/" + found->partitions[0].name == partition);
    CHECK(found->partitions[0].range == ByteRange{1 << 20, 20 << 20});
    auto use = find_use(*found);
    REQUIRE(use);
    CHECK(use->filesystems.empty());
}

TEST_CASE("what is no disk is refused with the reason") {
    NEEDS_LOOP_DISKS();
    TempDir dir;
    auto missing = identify(dir.path() / "missing");
    REQUIRE_FALSE(missing);
    CHECK(missing.error().message.find("missing") != std::string::npos);
    auto directory = identify(dir.path());
    REQUIRE_FALSE(directory);
    CHECK(directory.error().message.find("not a block device") != std::string::npos);
    if (std::filesystem::exists("/dev/zram0")) {
        auto memory = identify("/dev/zram0");
        REQUIRE_FALSE(memory);
        CHECK(memory.error().message.find("memory") != std::string::npos);
    }
    const std::string empty = sh("losetup --find");
    auto no_medium = identify(empty);
    REQUIRE_FALSE(no_medium);
    CHECK(no_medium.error().message.find("no medium") != std::string::npos);
}

TEST_CASE("active swap on the disk is named as what cannot be frozen") {
    NEEDS_LOOP_DISKS();
    TempDir dir;
    LoopDisk disk(dir.path() / "disk", "64M");
    const std::string partition = disk.add_partition(8, 32);
    sh("mkswap " + partition);
    if (!sh_ok("swapon " + partition)) {
        std::cout << "not tested: swap cannot be switched on here\n";
        return;
    }
    auto found = identify(disk.device());
    auto use = found ? find_use(*found) : Result<DiskUse>(pass(found));
    sh("swapoff " + partition);
    REQUIRE(use);
    REQUIRE(use->unfreezable.size() == 1);
    CHECK(use->unfreezable[0].what == "swap on " + partition);
    CHECK(use->unfreezable[0].extents == std::vector<ByteRange>{{8 << 20, 32 << 20}});
}
