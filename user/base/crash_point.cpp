// SPDX-License-Identifier: Apache-2.0
#include "user/base/crash_point.h"

#include <signal.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <mutex>
#include <string>

namespace herald {

namespace {

struct Armed {
    std::mutex lock;
    std::string name;
    unsigned left = 0;
};

// Never destroyed: a thread may reach a crash point while the process exits.
Armed& armed() {
    static Armed* state = new Armed;
    return *state;
}

bool arm(std::string_view text) {
    Armed& state = armed();
    const std::lock_guard hold(state.lock);
    const size_t colon = text.rfind(':');
    state.name = std::string(text.substr(0, colon));
    state.left = 1;
    if (colon != std::string_view::npos) {
        const std::string_view count = text.substr(colon + 1);
        std::from_chars(count.data(), count.data() + count.size(), state.left);
    }
    return !state.name.empty();
}

bool arm_from_environment() {
    const char* text = std::getenv("HERALD_CRASH_AT");
    return text && arm(text);
}

}  // namespace

namespace detail {

std::atomic<bool> crash_point_armed{arm_from_environment()};

void crash_point_reached(std::string_view name) {
    Armed& state = armed();
    const std::lock_guard hold(state.lock);
    if (name != state.name || state.left == 0 || --state.left > 0) return;
    ::kill(::getpid(), SIGKILL);
    // The signal may be delivered to another thread first: nothing may run here meanwhile.
    for (;;) ::pause();
}

}  // namespace detail

void arm_crash_point(std::string_view name_and_count) {
    detail::crash_point_armed.store(arm(name_and_count), std::memory_order_relaxed);
}

}  // namespace herald
