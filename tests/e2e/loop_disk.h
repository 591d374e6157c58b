// SPDX-License-Identifier: Apache-2.0
// A scratch disk on a loop device, filesystems mounted from it, and commands that must succeed.
// Promise: unmounts, detaches and deletes what it made, in the destructors.
#pragma once

#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>

#include "tests/temp_dir.h"

namespace herald::test {

// Standard output of a shell command, without its last newline; throws when it fails.
inline std::string sh(const std::string& command) {
    std::FILE* pipe = ::popen((command + " 2>&1").c_str(), "r");
    if (!pipe) throw std::runtime_error("popen: " + command);
    std::string out;
    char chunk[4096];
    size_t n;
    while ((n = std::fread(chunk, 1, sizeof chunk, pipe)) > 0) out.append(chunk, n);
    const int status = ::pclose(pipe);
    while (!out.empty() && out.back() == '\n') out.pop_back();
    if (status != 0) throw std::runtime_error(command + ": " + out);
    return out;
}

inline bool sh_ok(const std::string& command) {
    return std::system((command + " >/dev/null 2>&1").c_str()) == 0;
}

class LoopDisk {
  public:
    LoopDisk(std::filesystem::path file, const std::string& size) : file_(std::move(file)) {
        sh("truncate -s " + size + " " + file_.native());
        device_ = sh("losetup --find --show " + file_.native());
    }
    LoopDisk(const LoopDisk&) = delete;
    LoopDisk& operator=(const LoopDisk&) = delete;
    ~LoopDisk() {
        for (int i = 1; i <= partitions_; ++i) {
            sh_ok("delpart " + device_ + " " + std::to_string(i));
        }
        sh_ok("losetup --detach " + device_);
        std::error_code ignored;
        std::filesystem::remove(file_, ignored);
    }

    // Adds the next partition to the kernel's view (it need not understand partition tables).
    std::string add_partition(uint64_t first_mib, uint64_t mib) {
        const std::string number = std::to_string(++partitions_);
        sh("addpart " + device_ + " " + number + " " + std::to_string(first_mib * 2048) + " " +
           std::to_string(mib * 2048));
        return device_ + "p" + number;
    }
    const std::string& device() const { return device_; }
    std::string name() const { return device_.substr(5); }
    const std::filesystem::path& file() const { return file_; }

  private:
    std::filesystem::path file_;
    std::string device_;
    int partitions_ = 0;
};

// Makes a filesystem on a device and mounts it on a new directory.
class MountedAt {
  public:
    MountedAt(const std::string& type, const std::string& device, std::filesystem::path at)
        : at_(std::move(at)) {
        std::filesystem::create_directories(at_);
        sh("mkfs." + type + (type == "ext4" ? " -q -F " : " -q -f ") + device);
        sh("mount -t " + type + " " + device + " " + at_.native());
    }
    // A bind mount.
    MountedAt(const std::filesystem::path& from, std::filesystem::path at) : at_(std::move(at)) {
        std::filesystem::create_directories(at_);
        sh("mount --bind " + from.native() + " " + at_.native());
    }
    MountedAt(const MountedAt&) = delete;
    MountedAt& operator=(const MountedAt&) = delete;
    ~MountedAt() {
        for (int i = 0; i < 50 && ::umount2(at_.c_str(), 0) != 0; ++i) ::usleep(20000);
    }
    const std::filesystem::path& path() const { return at_; }

  private:
    std::filesystem::path at_;
};

// What a test lacks here, or nothing.
inline std::string missing_for_loop_disks() {
    if (::geteuid() != 0) return "not root";
    if (!sh_ok("test -b /dev/loop0 || losetup --find")) return "no loop devices";
    return {};
}

}  // namespace herald::test
