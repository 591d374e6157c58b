// SPDX-License-Identifier: Apache-2.0
// ImageFile is where a restore writes: a new file under a temporary name beside its final one, or
// a block device as it is.
// Promise: under the final name there is the old file, or nothing, or a complete image. Without
// force nothing that exists is touched. Dropped before commit(), a file of ours is removed.
// Callers: one thread. Owns: descriptor and temporary file.
// Failure: EEXIST, EBUSY, EFBIG, ENOSPC are refusals; each says what to do.
#pragma once

#include <filesystem>

#include "user/vault/restore_target.h"

namespace herald::cli {

class ImageFile {
  public:
    // Asked before any work, so that a refusal costs nothing; open() asks again.
    static Result<void> check(const std::filesystem::path& path, bool force);
    static Result<ImageFile> open(const std::filesystem::path& path, uint64_t bytes, bool force);
    ImageFile(ImageFile&& other) noexcept;
    ImageFile& operator=(ImageFile&&) = delete;
    ~ImageFile();

    int fd() const { return target_.fd.get(); }
    bool block_device() const { return target_.block_device; }
    // Makes the image durable under its final name.
    Result<void> commit();
    // What is left behind if this is dropped now; for the message after a failure.
    std::string leftover() const;

  private:
    ImageFile() = default;

    vault::RestoreTarget target_;
    std::filesystem::path path_;
    std::filesystem::path temporary_;  // empty: nothing to remove
    bool force_ = false;
};

// SHA-256 in hex of the first `bytes` bytes, read back from the target.
Result<std::string> sha256_of(int fd, uint64_t bytes, std::string_view path);

}  // namespace herald::cli
