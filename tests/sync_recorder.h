// SPDX-License-Identifier: Apache-2.0
// SyncRecorder notes which files and directories were synced while it lives. It replaces fsync(2)
// in the program that includes this header (in one source file only): what a power cut leaves on
// ext4 or xfs depends less on a directory's own fsync than the contract allows, so that some
// missing ones show only here.
#pragma once

#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>
#include <set>
#include <string>

namespace herald::test {

class SyncRecorder {
  public:
    SyncRecorder() { current_ = this; }
    SyncRecorder(const SyncRecorder&) = delete;
    SyncRecorder& operator=(const SyncRecorder&) = delete;
    ~SyncRecorder() { current_ = nullptr; }
    bool synced(const std::filesystem::path& path) const { return paths_.contains(path.native()); }

    static void note(int fd) {
        if (!current_) return;
        std::error_code ignored;
        const auto link =
            std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(fd), ignored);
        current_->paths_.insert(link.native());
    }

  private:
    static inline SyncRecorder* current_ = nullptr;
    std::set<std::string> paths_;
};

}  // namespace herald::test

extern "C" int fsync(int fd) {
    herald::test::SyncRecorder::note(fd);
    return int(::syscall(SYS_fsync, fd));
}
