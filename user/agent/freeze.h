// SPDX-License-Identifier: Apache-2.0
// Freezer: makes mounted filesystems quiescent for a moment (FIFREEZE) and lets them go again.
// Promise: nothing stays frozen: the destructor thaws, a failure half-way thaws what was frozen,
// and before the first FIFREEZE a guardian in another process holds every filesystem and thaws at
// the deadline or when this process dies. A filesystem somebody else froze is refused, not thawed.
// Promise: a point is never exact by luck: Thawed::expired says whether any filesystem may have
// been writable before thaw() was called.
//
// How a caller takes a point:
//   syncfs and catch up while still running;
//   auto frozen = freezer.freeze(use.filesystems, 10s);
//   last drain and its reads; note the time; if frozen.remaining() is gone, stop reading;
//   Thawed report = frozen->thaw();
//   only if !report.expired: append the tag. Reads that happened before thaw() are what it names.
// Callers: one thread for each Frozen. Between freeze() and thaw() write to no file (LogGate).
// Owns: descriptors of the mount points and the guardian's connection.
#pragma once

#include <chrono>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "user/agent/disk_identity.h"
#include "user/base/file.h"

namespace herald::agent {

inline constexpr char kGuardianSocketDefault[] = "/run/herald/guardian.sock";

struct Thawed {
    std::chrono::nanoseconds frozen{0};  // from the first FIFREEZE to the last FITHAW
    bool expired = false;                // do not accept the point
    std::string cause;                   // why expired, naming the filesystem; empty otherwise
    bool guardian_lost = false;          // it died while we were frozen; the point is still good
};

class Frozen {
  public:
    Frozen(Frozen&&) noexcept;
    Frozen& operator=(Frozen&&) noexcept;
    ~Frozen();

    // Thaws (the bottom of the stack first) and says what can be believed. Once.
    Thawed thaw();
    // Instead of thaw(), for a disk that does not answer: the guardian thaws at once, and what
    // hangs in FITHAW, unkillable, is not this process. Returns when it has; thaws here where no
    // guardian is left, or it dies on the way.
    void leave_to_guardian();
    // Time until the guardian thaws; zero or less when it is over.
    std::chrono::nanoseconds remaining() const;

  private:
    friend class Freezer;
    struct State;
    explicit Frozen(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
};

class Freezer {
  public:
    explicit Freezer(std::filesystem::path guardian_socket = kGuardianSocketDefault);

    // Freezes in the order given (find_use() gives the right one). `deadline` counts from the call.
    // Errors: operator_needed when no guardian answers (with the remedy) or a type cannot freeze;
    // retry, naming the filesystem, when one is frozen by somebody else or time ran out.
    Result<Frozen> freeze(std::span<const MountedFilesystem> filesystems,
                          std::chrono::milliseconds deadline) const;
    // Whether a guardian answers, for `doctor`.
    Result<void> probe() const;

  private:
    std::filesystem::path guardian_socket_;
};

// syncfs(2) of each, so that the freeze that follows is short.
Result<void> sync_filesystems(std::span<const MountedFilesystem> filesystems);

}  // namespace herald::agent
