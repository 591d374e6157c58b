// SPDX-License-Identifier: Apache-2.0
#include "tools/herald/interrupt.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

namespace herald::cli {

namespace {

std::atomic<bool> flag{false};
static_assert(std::atomic<bool>::is_always_lock_free, "it is set in a signal handler");

void on_signal(int) {
    if (flag.exchange(true)) ::_exit(130);
}

}  // namespace

void catch_interrupts() {
    struct sigaction action {};
    action.sa_handler = on_signal;
    // No SA_RESTART: a blocked read or sleep returns, so that the flag is looked at.
    for (int signal : {SIGINT, SIGTERM, SIGHUP}) ::sigaction(signal, &action, nullptr);
    ::signal(SIGPIPE, SIG_IGN);
}

bool interrupted() { return flag.load(std::memory_order_relaxed); }

Result<void> check_interrupt() {
    if (!interrupted()) return {};
    return tl::unexpected<Error>(Error{ErrorKind::operator_needed, "interrupted", EINTR});
}

}  // namespace herald::cli
