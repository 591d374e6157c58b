// SPDX-License-Identifier: Apache-2.0
// Guardian: thaws what a replicator froze, when the replicator cannot: it died, hangs, or its
// deadline passed. Runs in a process of its own.
// Promise: from the answer to "arm" on, every descriptor is thawed at the deadline or when the
// connection closes, whichever is first, unless "disarm" came before. All threads and memory that a
// thaw needs exist before that answer. After the deadline it thaws again every 100 ms until the
// connection closes, because a FIFREEZE under way may finish after the first FITHAW.
// Promise: it writes nothing while anything is armed; reports wait until afterwards.
// Promise: when the system has no thread left for it, arming is refused and nothing else changes.
// Limits: it cannot know which of the descriptors were really frozen: if a filesystem was frozen by
// somebody else and the replicator dies between arming and being told so, theirs is thawed.
// Callers: one thread calls run(); stop() from any, also from a signal handler.
// Owns: the socket file, a thread for each connection and one for each descriptor it guards.
#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <thread>

#include "user/base/file.h"

namespace herald::agent {

class Guardian {
  public:
    // `report` gets one line for each thaw that the guardian did, after the thaw, from any thread.
    using Report = std::function<void(const std::string&)>;
    static Result<std::unique_ptr<Guardian>> listen(const std::filesystem::path& socket,
                                                    Report report);
    ~Guardian();
    Guardian(const Guardian&) = delete;
    Guardian& operator=(const Guardian&) = delete;

    // Serves until stop(); then thaws what is still armed (its guard would be gone) and returns.
    void run();
    void stop();

  private:
    struct Session {
        std::thread thread;
        std::atomic<bool> finished{false};
    };
    Guardian(std::filesystem::path socket, Fd listener, Fd stop, Report report);
    void accept(Fd connection);
    void serve(Fd connection);
    void join(bool all);

    std::filesystem::path socket_;
    Fd listener_;
    Fd stop_;  // eventfd: readable from stop() on
    Report report_;
    std::list<Session> sessions_;  // of the thread in run()
};

}  // namespace herald::agent
