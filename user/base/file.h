// SPDX-License-Identifier: Apache-2.0
// Files: an owned descriptor, whole reads and writes, and the two durable steps that everything
// on disk is built from (write a new file completely; make its name durable).
// Failure: errors name the path. Nothing is left half-written under the final name.
#pragma once

#include <fcntl.h>

#include <filesystem>
#include <string>
#include <utility>

#include "user/base/bytes.h"
#include "user/base/result.h"

namespace herald {

// Owns a file descriptor; closes it once.
class Fd {
  public:
    Fd() = default;
    explicit Fd(int fd) : fd_(fd) {}
    Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    Fd& operator=(Fd&& other) noexcept {
        if (this != &other) {
            reset();
            fd_ = std::exchange(other.fd_, -1);
        }
        return *this;
    }
    Fd(const Fd&) = delete;
    Fd& operator=(const Fd&) = delete;
    ~Fd() { reset(); }

    int get() const { return fd_; }
    explicit operator bool() const { return fd_ >= 0; }
    void reset();

  private:
    int fd_ = -1;
};

// open(2) with O_CLOEXEC added.
Result<Fd> open_file(const std::filesystem::path& path, int flags, mode_t mode = 0600);
// Reads exactly to.size() bytes at offset; a short file is a corrupt error.
Result<void> read_exact(int fd, uint64_t offset, ByteSpan to, std::string_view path);
Result<void> write_exact(int fd, uint64_t offset, ByteView from, std::string_view path);
Result<void> sync_fd(int fd, std::string_view path);
// fsync of a directory: makes the names in it durable.
Result<void> sync_dir(const std::filesystem::path& dir);
// Makes the directory and what is missing above it. When it returns, every name on the way is
// durable, also those of directories that an earlier try made before it died.
Result<void> make_dirs(const std::filesystem::path& dir);
// The whole file; larger than bytes_max is refused.
Result<Bytes> read_file(const std::filesystem::path& path, uint64_t bytes_max);
// Writes a temporary file beside path, syncs it, renames it over path and syncs the directory:
// after a crash path holds the old bytes or the new ones.
Result<void> replace_file(const std::filesystem::path& path, ByteView bytes, mode_t mode = 0600);
// Size in bytes of a regular file or block device.
Result<uint64_t> size_of(int fd, std::string_view path);

}  // namespace herald
