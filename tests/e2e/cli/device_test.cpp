// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <unistd.h>

#include <iostream>

#include "tests/catch.hpp"
#include "tests/e2e/support/test_site.h"
#include "tests/e2e/support/test_stream.h"
#include "user/base/file.h"

using namespace herald;
using namespace herald::test;
namespace fs = std::filesystem;

namespace {

// A loop device over a fresh file; detached at the end.
class LoopDevice {
  public:
    LoopDevice(const fs::path& file, uint64_t bytes) {
        const Fd backing(::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
        if (!backing || ::ftruncate(backing.get(), off_t(bytes)) != 0) return;
        const Fd control(::open("/dev/loop-control", O_RDWR | O_CLOEXEC));
        if (!control) return;
        // Another program may take the free device first.
        for (int attempt = 0; attempt < 20; ++attempt) {
            const int number = ::ioctl(control.get(), LOOP_CTL_GET_FREE);
            if (number < 0) return;
            path_ = "/dev/loop" + std::to_string(number);
            Fd device(::open(path_.c_str(), O_RDWR | O_CLOEXEC));
            if (device && ::ioctl(device.get(), LOOP_SET_FD, backing.get()) == 0) {
                device_ = std::move(device);
                return;
            }
        }
    }
    ~LoopDevice() {
        if (device_) ::ioctl(device_.get(), LOOP_CLR_FD);
    }
    bool good() const { return bool(device_); }
    const std::string& path() const { return path_; }

  private:
    Fd device_;
    std::string path_;
};

bool can_use_devices() {
    if (::geteuid() == 0 && ::access("/dev/loop-control", W_OK) == 0) return true;
    std::cout << "SKIPPED: block device targets need root and loop devices\n";
    return false;
}

bool has(const std::string& text, std::string_view part) {
    return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("a block device is overwritten only with --force, never mounted, never smaller") {
    if (!can_use_devices()) return;
    TestSite site;
    auto machine = site.client("machine");
    TestStream stream(site.machine(), 8u << 20, 6);
    REQUIRE(stream.open_session(*machine).status == 200);
    stream.deliver(*machine, "point");
    const auto restore_to = [&](const std::string& path, bool force) {
        std::vector<std::string> arguments = {"restore", "/dev/test", "--latest", "--to", path};
        if (force) arguments.push_back("--force");
        return site.herald(arguments);
    };

    LoopDevice large(site.dir() / "large", 12u << 20);
    LoopDevice small(site.dir() / "small", 4u << 20);
    if (!large.good() || !small.good()) {
        std::cout << "SKIPPED: no loop device is free\n";
        return;
    }
    const auto too_small = restore_to(small.path(), true);
    CHECK(too_small.status == 3);
    CHECK(has(too_small.err, small.path()));

    const auto not_forced = restore_to(large.path(), false);
    CHECK(not_forced.status == 3);
    CHECK(has(not_forced.err, "--force"));

    const auto mkfs = run({"/sbin/mkfs.ext4", "-q", large.path()}, site.dir());
    REQUIRE(mkfs.status == 0);
    const auto where = site.dir() / "mounted";
    fs::create_directory(where);
    REQUIRE(::mount(large.path().c_str(), where.c_str(), "ext4", 0, nullptr) == 0);
    const auto mounted = restore_to(large.path(), true);
    const auto mounted_not_forced = restore_to(large.path(), false);
    REQUIRE(::umount(where.c_str()) == 0);
    CHECK(mounted.status == 3);
    CHECK(has(mounted.err, "mounted"));
    CHECK(mounted_not_forced.status == 3);
    CHECK(has(mounted_not_forced.err, "mounted"));

    const auto done = restore_to(large.path(), true);
    INFO(done.err);
    REQUIRE(done.status == 0);
    const auto backing = read_file(site.dir() / "large", 64u << 20);
    REQUIRE(backing);
    CHECK(backing->size() == 12u << 20);
    CHECK(std::equal(stream.image().begin(), stream.image().end(), backing->begin()));
}

TEST_CASE("a device that a failed restore wrote on is said to be incomplete") {
    if (!can_use_devices()) return;
    TestSite site;
    auto machine = site.client("machine");
    TestStream stream(site.machine(), 1u << 20, 7);
    REQUIRE(stream.open_session(*machine).status == 200);
    stream.deliver(*machine, "point");
    LoopDevice device(site.dir() / "device", 1u << 20);
    if (!device.good()) {
        std::cout << "SKIPPED: no loop device is free\n";
        return;
    }
    REQUIRE(replace_file(site.stored_files()[0], as_bytes("rotten")));
    const auto refused =
        site.herald({"restore", "/dev/test", "--latest", "--to", device.path(), "--force"});
    CHECK(refused.status != 0);
    CHECK(has(refused.err, "INCOMPLETE"));
}
