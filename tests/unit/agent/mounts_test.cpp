// SPDX-License-Identifier: Apache-2.0
#include "user/agent/mounts.h"

#include <sys/sysmacros.h>

#include "tests/catch.hpp"
#include "tests/temp_dir.h"

using namespace herald;
using namespace herald::agent;

TEST_CASE("the mount table is read with and without optional fields, blanks and empty sources") {
    const Mounts mounts = Mounts::parse(
        "22 1 8:1 / / rw,relatime shared:1 master:2 - ext4 /dev/sda1 rw,errors=remount-ro\n"
        "23 22 0:26 /sub /mnt/with\\040blank rw - btrfs /dev/sdb ro,space_cache\n"
        "24 22 0:5 / /proc rw - proc  rw\n"
        "broken line\n"
        "\n"
        "25 22 8:2 / /last rw - xfs /dev/sda2 rw");
    REQUIRE(mounts.all().size() == 4);
    CHECK(mounts.all()[0].id == 22);
    CHECK(mounts.all()[0].device == makedev(8, 1));
    CHECK(mounts.all()[0].type == "ext4");
    CHECK(mounts.all()[0].source == "/dev/sda1");
    CHECK_FALSE(mounts.all()[0].superblock_read_only());
    CHECK(mounts.all()[1].mount_point == "/mnt/with blank");
    CHECK(mounts.all()[1].root == "/sub");
    CHECK(mounts.all()[1].superblock_read_only());
    CHECK(mounts.all()[2].type == "proc");
    CHECK(mounts.all()[2].source.empty());
    CHECK(mounts.all()[2].super_options == "rw");
    CHECK(mounts.all()[3].mount_point == "/last");
    CHECK(mounts.devices_of(mounts.all()[0]) == std::vector<dev_t>{makedev(8, 1)});
    CHECK(mounts.devices_of(mounts.all()[2]).empty());
}

TEST_CASE("a path that does not exist is on the mount of its nearest parent") {
    auto mounts = Mounts::read();
    REQUIRE(mounts);
    test::TempDir dir;
    const Mount* here = mounts->holding(dir.path());
    REQUIRE(here);
    CHECK(Mounts::reachable(*here));
    CHECK(mounts->holding(dir.path() / "not" / "there" / "yet") == here);
    const Mount* proc = mounts->holding("/proc/self/status");
    REQUIRE(proc);
    CHECK(proc->type == "proc");
    std::filesystem::create_symlink("/proc/self", dir.path() / "link");
    CHECK(mounts->holding(dir.path() / "link" / "status") == proc);
}

TEST_CASE("octal escapes are undone, a lone backslash stays") {
    CHECK(unescape_octal("a\\040b\\011c\\134d") == "a b\tc\\d");
    CHECK(unescape_octal("a\\04") == "a\\04");
    CHECK(unescape_octal("\\") == "\\");
    CHECK(unescape_octal("\\999") == "\\999");
}

TEST_CASE("a device number is parsed, anything else is none") {
    CHECK(parse_dev("8:17") == makedev(8, 17));
    CHECK(parse_dev("") == 0);
    CHECK(parse_dev("sda") == 0);
}
