// SPDX-License-Identifier: Apache-2.0
// CutFilesystem: a scratch filesystem on a loop device whose power can be cut: what was not synced
// is lost, and the journal is replayed at the next mount.
// Promise: unmounts, detaches and deletes what it made, in the destructor. Needs root.
#pragma once

#include <sys/ioctl.h>

#include "tests/e2e/loop_disk.h"
#include "user/base/file.h"

namespace herald::test {

// As EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN: one number, and one meaning of the flag, which keeps
// the log in memory from being written out.
constexpr unsigned long kShutdown = _IOR('X', 125, uint32_t);
constexpr uint32_t kNoLogFlush = 2;

class CutFilesystem {
  public:
    CutFilesystem(const std::string& type, const std::filesystem::path& work, std::string name)
        : type_(type),
          at_(work / name),
          // mkfs.xfs makes none smaller; the file is sparse.
          disk_(work / (name + ".img"), type == "xfs" ? "320M" : "64M") {
        std::filesystem::create_directories(at_);
        sh("mkfs." + type + (type == "ext4" ? " -q -F " : " -q -f ") + disk_.device());
        mount();
    }
    ~CutFilesystem() {
        if (mounted_) sh_ok("umount " + at_.native());
    }
    void cut() {
        auto fd = open_file(at_, O_RDONLY | O_DIRECTORY);
        uint32_t flags = kNoLogFlush;
        if (!fd || ::ioctl(fd->get(), kShutdown, &flags) != 0) {
            throw std::runtime_error("cannot shut down " + at_.native() + ": " + strerror(errno));
        }
    }
    // After cut(), when nobody uses it any more.
    void power_on() {
        sh("umount " + at_.native());
        mounted_ = false;
        mount();
    }
    const std::filesystem::path& path() const { return at_; }

  private:
    void mount() {
        sh("mount -t " + type_ + " " + disk_.device() + " " + at_.native());
        mounted_ = true;
    }
    std::string type_;
    std::filesystem::path at_;
    LoopDisk disk_;
    bool mounted_ = false;
};

}  // namespace herald::test
