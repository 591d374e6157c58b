// SPDX-License-Identifier: Apache-2.0
// StateDir: what the replicator remembers across reboots: which disks an operator protected or
// unprotected over the control socket, which resyncs were ordered and not begun yet, and each
// disk's newest point (for the status only).
// Promise: one replicator for one directory (a lock); files are replaced whole; nothing is written
// while freeze_lock() is held, because the directory may lie on the frozen filesystem.
// Callers: any thread, not the one that holds freeze_lock(). A directory on a disk that hangs keeps
// whoever writes: what the disks' threads write is written for them. Owns: a thread for that.
// Failure: errors name the file.
#pragma once

#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
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

struct Remembered {
    std::optional<PointReport> last_point;
    std::optional<ResyncHow> order;
};

class StateDir {
  public:
    // operator_needed when another replicator holds it.
    static Result<std::unique_ptr<StateDir>> open(const std::filesystem::path& dir);
    // Waits until all is written.
    ~StateDir();

    std::vector<ChosenDisk> chosen() const;
    Result<void> choose(const ChosenDisk& disk);
    // Of a disk that is protected still, and only then.
    Result<void> found_at(const std::string& identity, const std::string& path);

    Remembered remembered(const Uuid& disk) const { return {last_point(disk), order(disk)}; }
    std::optional<PointReport> last_point(const Uuid& disk) const;
    // Soon.
    void save_last_point(const Uuid& disk, const PointReport& point);
    // A resync that was ordered. Full stands over digest: it covers what that would find.
    std::optional<ResyncHow> order(const Uuid& disk) const;
    Result<void> save_order(const Uuid& disk, ResyncHow how);
    // It is carried out, or what makes it be carried out is remembered elsewhere. Another order
    // that came meanwhile stands. Soon.
    void drop_order(const Uuid& disk, ResyncHow how);
    void forget(const Uuid& disk);
    // False: what is to be written soon was not written by then.
    [[nodiscard]] bool written_by(std::chrono::steady_clock::time_point until);

    const std::filesystem::path& path() const { return dir_; }
    // Held from before a freeze until after the thaw: one freeze at a time, no write meanwhile.
    FreezeLock& freeze_lock() { return freeze_lock_; }

  private:
    struct Later {
        std::optional<PointReport> point;
        std::optional<ResyncHow> dropped;
    };
    explicit StateDir(std::filesystem::path dir) : dir_(std::move(dir)) {}
    Result<void> replace_chosen(std::vector<ChosenDisk> after);
    void write_later();
    void write(const Uuid& disk, const Later& later);
    std::filesystem::path point_file(const Uuid& disk) const;
    std::filesystem::path order_file(const Uuid& disk) const;

    std::filesystem::path dir_;
    Fd lock_file_;
    FreezeLock freeze_lock_;
    mutable std::mutex lock_;  // level 3; guards all below; left during every write
    std::vector<ChosenDisk> chosen_;
    std::map<Uuid, Later> later_;
    bool writing_later_ = false;
    bool stop_ = false;
    std::condition_variable changed_;
    std::thread writer_;
};

}  // namespace herald::replicator
