// SPDX-License-Identifier: Apache-2.0
// OwnLoop: a loop device whose name stays the test's own while nothing is attached to it.
// Promise: `losetup --find` of a test beside this one does not take it: it takes the lowest free
// device, this one has a high number, and there are free ones below. Removed at the end.
// Callers: root. Failure: an exception that names the device.
#pragma once

#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <filesystem>
#include <stdexcept>
#include <string>

#include "user/base/file.h"

namespace herald::test {

class OwnLoop {
  public:
    OwnLoop() : control_(::open("/dev/loop-control", O_RDWR | O_CLOEXEC)) {
        if (!control_) throw std::runtime_error("/dev/loop-control: cannot be opened");
        // More than all tests of a host use at a time.
        constexpr int kOthers = 64;
        for (int i = 0; i < kOthers; ++i) ::ioctl(control_.get(), LOOP_CTL_ADD, i);
        for (int i = 0; number_ < 0 && i < 1000; ++i) {
            number_ = ::ioctl(control_.get(), LOOP_CTL_ADD, 1000 + ::getpid() % 100'000 + i);
        }
        if (number_ < 0) throw std::runtime_error("/dev/loop-control: adds no device");
    }
    OwnLoop(const OwnLoop&) = delete;
    OwnLoop& operator=(const OwnLoop&) = delete;
    // It is busy until the last who had it open has closed it.
    ~OwnLoop() {
        for (int i = 0; i < 100 && ::ioctl(control_.get(), LOOP_CTL_REMOVE, number_) < 0; ++i) {
            ::usleep(10'000);
        }
    }
    std::filesystem::path path() const { return "/dev/loop" + std::to_string(number_); }

  private:
    Fd control_;
    int number_ = -1;
};

}  // namespace herald::test
