// SPDX-License-Identifier: Apache-2.0
#include "user/vault/restore_target.h"

#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>

#include "tests/catch.hpp"
#include "tests/temp_dir.h"

using namespace herald;
using vault::open_restore_target;

namespace {

// A loop device over a new file; detached at the end.
class Loop {
  public:
    Loop(const std::filesystem::path& file, uint64_t bytes) {
        const int backing = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        const int control = ::open("/dev/loop-control", O_RDWR | O_CLOEXEC);
        if (backing >= 0 && control >= 0 && ::ftruncate(backing, off_t(bytes)) == 0) {
            // Somebody else may take the free one first.
            for (int attempt = 0; attempt < 20 && fd_ < 0; ++attempt) {
                const int number = ::ioctl(control, LOOP_CTL_GET_FREE);
                if (number < 0) break;
                path_ = "/dev/loop" + std::to_string(number);
                const int fd = ::open(path_.c_str(), O_RDWR | O_CLOEXEC);
                if (fd < 0) break;
                if (::ioctl(fd, LOOP_SET_FD, backing) == 0) {
                    fd_ = fd;
                } else {
                    ::close(fd);
                }
            }
        }
        if (backing >= 0) ::close(backing);
        if (control >= 0) ::close(control);
    }
    Loop(const Loop&) = delete;
    Loop& operator=(const Loop&) = delete;
    ~Loop() {
        if (fd_ < 0) return;
        ::ioctl(fd_, LOOP_CLR_FD, 0);
        ::close(fd_);
    }
    bool there() const { return fd_ >= 0; }
    const std::string& path() const { return path_; }

  private:
    int fd_ = -1;
    std::string path_;
};

std::string refusal(const std::filesystem::path& path, uint64_t bytes, bool overwrite) {
    auto target = open_restore_target(path, bytes, overwrite);
    return target ? "" : target.error().message;
}

bool says(const std::string& message, const char* what) {
    return message.find(what) != std::string::npos;
}

}  // namespace

TEST_CASE("a new file is made as long as the disk; an existing one is kept unless told so") {
    test::TempDir dir;
    const auto path = dir.path() / "image";
    {
        auto target = open_restore_target(path, 4096, false);
        REQUIRE(target);
        CHECK(target->created);
        CHECK(*size_of(target->fd.get(), "") == 4096);
        REQUIRE(write_exact(target->fd.get(), 0, as_bytes("old"), ""));
    }
    CHECK(says(refusal(path, 4096, false), "--force"));
    CHECK(says(refusal(path, 4096, false), path.c_str()));
    CHECK(as_text(*read_file(path, 10000)).substr(0, 3) == "old");
    auto target = open_restore_target(path, 8192, true);
    REQUIRE(target);
    CHECK_FALSE(target->created);
    CHECK(all_zero(*read_file(path, 10000)));
    CHECK(*size_of(target->fd.get(), "") == 8192);
}

TEST_CASE("a folder, a pipe and a file in a missing folder are refused") {
    test::TempDir dir;
    CHECK(says(refusal(dir.path(), 512, true), "neither"));
    REQUIRE(::mkfifo((dir.path() / "pipe").c_str(), 0600) == 0);
    CHECK(says(refusal(dir.path() / "pipe", 512, true), "neither"));
    CHECK(says(refusal(dir.path() / "no" / "image", 512, true), "No such file"));
    CHECK_FALSE(refusal(dir.path() / "huge", ~0ull >> 1, false).empty());
    CHECK_FALSE(std::filesystem::exists(dir.path() / "huge"));
}

TEST_CASE("a block device that is small, mounted or in use is refused, a free one is taken") {
    test::TempDir dir;
    Loop loop(dir.path() / "backing", 16 << 20);
    if (!loop.there()) {
        std::puts("SKIPPED: no loop device could be made (root is needed)");
        return;
    }
    CHECK(says(refusal(loop.path(), 16 << 20, false), "--force"));
    CHECK(says(refusal(loop.path(), 17 << 20, true), "large enough"));
    {
        auto target = open_restore_target(loop.path(), 16 << 20, true);
        REQUIRE(target);
        CHECK(target->block_device);
        // It keeps others out for as long as it is open.
        CHECK(says(refusal(loop.path(), 16 << 20, true), "in use"));
    }
    const std::string make = "mkfs.ext4 -q -F " + loop.path() + " >/dev/null 2>&1";
    if (std::system(make.c_str()) != 0) return;
    const auto where = dir.path() / "mounted";
    std::filesystem::create_directory(where);
    REQUIRE(::mount(loop.path().c_str(), where.c_str(), "ext4", 0, nullptr) == 0);
    const std::string message = refusal(loop.path(), 16 << 20, true);
    REQUIRE(::umount(where.c_str()) == 0);
    CHECK(says(message, "unmount"));
    CHECK(says(message, where.c_str()));
}
