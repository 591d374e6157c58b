// SPDX-License-Identifier: Apache-2.0
// EbpfTracker: tracks the writes of one disk by BPF programs at the block layer's tracepoints,
// with no kernel module. Says which blocks changed, not in which order.
// Promise: programs and maps are pinned, so tracking goes on while no process of ours runs; a
// write is missed only when the kernel skips the programs at both its submission and its
// completion, and when that cannot be ruled out gap() says so.
// Callers: one thread for each disk; one process at a time for each disk (a second is refused).
// Owns: bpf_dir/<disk>/ and, while attached, its lock; never keeps the device itself open.
// Failure: drain() fails with `resync` when the disk was resized or replaced: let go of the
// tracker and attach again; gap() then says what happened.
// Layout: docs/internals/ebpf_tracker.md
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "user/base/result.h"
#include "user/base/uuid.h"
#include "user/tracker/block_device.h"
#include "user/tracker/tracker.h"

namespace herald::tracker {

// Faults for tests; they take effect only where attach() loads fresh programs.
struct EbpfFaults {
    bool leave_out_submissions = false;
    bool leave_out_open_writes = false;
    uint32_t drop_completions_percent = 0;
};

struct EbpfOptions {
    // A bpffs that nobody else unmounts; mounted there when it is not one. It has to be in the
    // host's mount namespace: a service with a private one takes the pins away when it stops.
    std::filesystem::path bpf_dir = "/run/herald/bpf";
    // A directory that survives a reboot, for one small file for each disk that lets gap() tell a
    // reboot from removed pins; written at attach and detach only. Empty: not used.
    std::filesystem::path state_dir;
    std::filesystem::path device;  // the whole disk
    Uuid disk;
    EbpfFaults faults;
};

class EbpfTracker : public Tracker {
  public:
    // Takes up the pinned programs and maps of this disk when they are alive and belong to it;
    // otherwise makes fresh ones, all bitmaps zero, with a gap() that says why. Programs run, and
    // every later write is marked, before this returns.
    static Result<std::unique_ptr<EbpfTracker>> attach(const EbpfOptions& options);
    // Stops tracking: removes programs and maps. Refused while a process is attached. No pins:
    // fine.
    static Result<void> detach(const EbpfOptions& options);

    ~EbpfTracker() override;

    std::string kind() const override { return "ebpf"; }
    std::optional<std::string> gap() const override;
    Result<void> clear_gap() override;
    DirtyMap& map() override;
    // Also looks for what would break the promise (skipped programs, passthrough writes, another
    // disk or another size under the device's name) and sets gap().
    Result<void> drain() override;
    Result<void> end_pass() override;
    Result<bool> quiet(std::span<const Extent> extents) override;
    Continuity continuity() const override;
    Result<void> set_continuity(const Continuity& continuity) override;
    Result<TrackerCounters> counters() const override;

    const BlockDevice& device() const;
    // True when attach() found pinned programs and maps that it could go on with.
    bool resumed() const;

  private:
    struct State;
    explicit EbpfTracker(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
};

// What is missing on this host, and what to do about it; success when EbpfTracker can work here.
Result<void> check_ebpf_requirements();

}  // namespace herald::tracker
