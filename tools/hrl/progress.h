// SPDX-License-Identifier: Apache-2.0
// Progress: one line on a terminal that says how far a long job is; nothing elsewhere.
#pragma once

#include <unistd.h>

#include <chrono>
#include <cstdio>

#include "tools/hrl/text.h"

namespace herald::hrl_tool {

class Progress {
  public:
    Progress(const char* doing, uint64_t total) : doing_(doing), total_(total) {}
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;
    ~Progress() {
        if (shown_) print_err("\r\033[K");
    }

    void at(uint64_t done) {
        const auto now = Clock::now();
        // Ten times a second is as often as a person sees a difference.
        if (!is_terminal_ || now - last_ < std::chrono::milliseconds(100)) return;
        last_ = now;
        shown_ = true;
        const double seconds = std::chrono::duration<double>(now - begin_).count();
        const double rate = double(done) / std::max(seconds, 0.001);
        const double left = rate > 0 && total_ > done ? double(total_ - done) / rate : 0;
        print_err("\r\033[K{} {} of {} ({:.0f} %), {}/s, {:.0f} s left", doing_, bytes_text(done),
                  bytes_text(total_), total_ == 0 ? 100.0 : 100.0 * double(done) / double(total_),
                  bytes_text(uint64_t(rate)), left);
        std::fflush(stderr);
    }

  private:
    using Clock = std::chrono::steady_clock;
    const char* doing_;
    uint64_t total_;
    bool is_terminal_ = ::isatty(STDERR_FILENO) == 1;
    bool shown_ = false;
    Clock::time_point begin_ = Clock::now();
    Clock::time_point last_ = begin_;
};

}  // namespace herald::hrl_tool
