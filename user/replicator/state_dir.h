// SPDX-License-Identifier: Apache-2.0
// StateDir: what the replicator remembers across reboots: which disks an operator protected or
// unprotected over the control socket, which resyncs were ordered and not begun yet, and each
// disk's newest point (for the status only).
// Promise: one replicator for one directory (a lock); files are replaced whole; nothing is written
// while freeze_lock() is held, because the directory may lie on the frozen filesystem.
// Callers: any thread, not the one that holds freeze_lock(). Failure: errors name the file.
#pragma once

#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "user/base/file.h"
#include "user/replicator/freeze_lock.h"
#include "user/replicator/status.h"

namespace herald::replicator {

struct ChosenDisk {
    std::string identity;
    std::string path;     // where it was last seen
    bool protect = true;  // false: in the configuration, and unprotected by an operator
};

enum class ResyncHow { full, digest, dirty };

class StateDir {
  public:
    // operator_needed when another replicator holds it.
    static Result<std::unique_ptr<StateDir>> open(const std::filesystem::path& dir);

    std::vector<ChosenDisk> chosen() const;
    Result<void> choose(const ChosenDisk& disk);

    std::optional<PointReport> last_point(const Uuid& disk) const;
    Result<void> save_last_point(const Uuid& disk, const PointReport& point);
    // A resync that was ordered. Full stands over digest: it covers what that would find.
    std::optional<ResyncHow> order(const Uuid& disk) const;
    Result<void> save_order(const Uuid& disk, ResyncHow how);
    // It is carried out, or what makes it be carried out is remembered elsewhere. Another order
    // that came meanwhile stands.
    void drop_order(const Uuid& disk, ResyncHow how);
    void forget(const Uuid& disk);

    const std::filesystem::path& path() const { return dir_; }
    // Held from before a freeze until after the thaw: one freeze at a time, no write meanwhile.
    FreezeLock& freeze_lock() { return freeze_lock_; }

  private:
    explicit StateDir(std::filesystem::path dir) : dir_(std::move(dir)) {}
    std::filesystem::path point_file(const Uuid& disk) const;
    std::filesystem::path order_file(const Uuid& disk) const;

    std::filesystem::path dir_;
    Fd lock_file_;
    FreezeLock freeze_lock_;
    mutable std::mutex lock_;  // guards chosen_
    std::vector<ChosenDisk> chosen_;
};

}  // namespace herald::replicator
