// SPDX-License-Identifier: Apache-2.0
#include "tools/hrl/unfinished.h"

#include <limits.h>
#include <signal.h>
#include <unistd.h>

#include <cstring>

namespace herald::hrl_tool {

namespace {

constexpr int kSignals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE};

// Read by the handler, changed only while the signals are held.
char unfinished_path[PATH_MAX];

sigset_t signal_set() {
    sigset_t set;
    ::sigemptyset(&set);
    for (const int signal : kSignals) ::sigaddset(&set, signal);
    return set;
}

void on_signal(int signal) {
    if (unfinished_path[0] != '\0') ::unlink(unfinished_path);
    // The handler was reset when it was called: the program ends as if there had been none.
    ::raise(signal);
}

void catch_signals() {
    static bool caught = false;
    if (std::exchange(caught, true)) return;
    for (const int signal : kSignals) {
        struct sigaction before {};
        // What the caller has ignored (nohup) stays so.
        if (::sigaction(signal, nullptr, &before) == 0 && before.sa_handler == SIG_IGN) continue;
        struct sigaction action {};
        action.sa_handler = on_signal;
        action.sa_mask = signal_set();
        action.sa_flags = SA_RESETHAND;
        ::sigaction(signal, &action, nullptr);
    }
}

}  // namespace

Unfinished::SignalsHeld::SignalsHeld() {
    const sigset_t set = signal_set();
    ::sigprocmask(SIG_BLOCK, &set, nullptr);
}

Unfinished::SignalsHeld::~SignalsHeld() {
    const sigset_t set = signal_set();
    ::sigprocmask(SIG_UNBLOCK, &set, nullptr);
}

Unfinished::Unfinished(const std::filesystem::path& path) {
    HERALD_ASSERT(unfinished_path[0] == '\0');
    // The kernel accepted the path, so it fits.
    std::strncpy(unfinished_path, path.c_str(), sizeof unfinished_path - 1);
    catch_signals();
}

Unfinished::~Unfinished() {
    const SignalsHeld held;
    if (!kept_) ::unlink(unfinished_path);
    unfinished_path[0] = '\0';
}

void Unfinished::keep() { kept_ = true; }

}  // namespace herald::hrl_tool
