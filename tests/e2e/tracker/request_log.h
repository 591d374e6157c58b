// SPDX-License-Identifier: Apache-2.0
// RequestLog: what the kernel itself recorded of one disk's requests (tracefs, an instance of its
// own), with marks of ours between them. A witness that shares nothing with the tracker: when a
// test finds a block that differs, it tells what wrote it, and before or after which step.
// Callers: root; one thread. Where there is no tracefs, or not enough of it, the log stays empty.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "tests/temp_dir.h"
#include "user/base/file.h"

namespace herald::test {

class RequestLog {
  public:
    // dev: of the whole disk.
    explicit RequestLog(dev_t dev);
    RequestLog(const RequestLog&) = delete;
    RequestLog& operator=(const RequestLog&) = delete;
    ~RequestLog();

    // A line of our own.
    void mark(std::string_view text);
    // Requests that change the disk and touch these sectors, and the marks around them; the newest
    // lines_max lines.
    std::vector<std::string> of(uint64_t sector, uint64_t sectors, size_t lines_max) const;

  private:
    TempDir dir_;
    std::filesystem::path instance_;
    Fd marker_;
};

}  // namespace herald::test
