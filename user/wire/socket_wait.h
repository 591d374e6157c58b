// SPDX-License-Identifier: Apache-2.0
// SocketWait: poll(2) on one socket with a deadline and a switch that ends every wait.
// Callers: one thread waits; trip() from any thread, and from a signal handler.
// Failure: retry, with what was waited for.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>

#include "user/base/file.h"

namespace herald::wire {

class SocketWait {
  public:
    using Clock = std::chrono::steady_clock;

    SocketWait();
    // The events of poll(2) that are there; hang-up and error count as any.
    Result<short> wait(int fd, short events, Clock::time_point deadline, const char* doing) const;
    void trip();
    bool tripped() const { return tripped_.load(std::memory_order_acquire); }

  private:
    Fd event_;
    std::atomic<bool> tripped_{false};  // release in trip(); pairs with tripped()
};

// A connected, non-blocking TCP socket to one of the addresses of `host`.
// Resolving is done by a thread of its own, because getaddrinfo(3) knows no deadline; a thread
// that is still at it is waited for by the next call instead of starting another.
class Connector {
  public:
    Result<Fd> connect(const std::string& host, uint16_t port, const SocketWait& wait,
                       SocketWait::Clock::time_point deadline);

  private:
    struct Lookup;
    std::shared_ptr<Lookup> lookup_;
};

}  // namespace herald::wire
