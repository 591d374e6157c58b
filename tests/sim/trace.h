// SPDX-License-Identifier: Apache-2.0
// Trace keeps what happened last, for the report of a failure; a Violation is a broken promise.
// Callers: one thread.
#pragma once

#include <fmt/format.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

namespace herald::sim {

struct Violation {
    std::string what;
};

template <class... Args>
[[noreturn]] void violated(fmt::format_string<Args...> format, Args&&... args) {
    throw Violation{fmt::format(format, std::forward<Args>(args)...)};
}

class Trace {
  public:
    uint64_t step = 0;

    template <class... Args>
    void add(fmt::format_string<Args...> format, Args&&... args) {
        std::string& line = lines_[count_++ % lines_.size()];
        line = fmt::format("{:6} {}", step, fmt::format(format, std::forward<Args>(args)...));
        if (live_) std::puts(line.c_str());
    }
    std::string text() const {
        std::string text;
        const uint64_t first = count_ > lines_.size() ? count_ - lines_.size() : 0;
        for (uint64_t i = first; i < count_; ++i) text += lines_[i % lines_.size()] + '\n';
        return text;
    }

  private:
    const bool live_ = std::getenv("HERALD_SIM_TRACE") != nullptr;  // all of it, as it happens
    std::array<std::string, 60> lines_;
    uint64_t count_ = 0;
};

}  // namespace herald::sim
