// SPDX-License-Identifier: Apache-2.0
// SmallFilesystem: a tmpfs of a few MiB for one test, to run out of space on; unmounted at the
// end. Needs root: mounted() is false without.
#pragma once

#include <sys/mount.h>

#include "tests/temp_dir.h"

namespace herald::test {

class SmallFilesystem {
  public:
    explicit SmallFilesystem(uint64_t bytes) {
        const std::string options = "size=" + std::to_string(bytes);
        mounted_ = ::mount("tmpfs", dir_.path().c_str(), "tmpfs", 0, options.c_str()) == 0;
    }
    SmallFilesystem(const SmallFilesystem&) = delete;
    SmallFilesystem& operator=(const SmallFilesystem&) = delete;
    ~SmallFilesystem() {
        if (mounted_) ::umount2(dir_.path().c_str(), MNT_DETACH);
    }
    bool mounted() const { return mounted_; }
    const std::filesystem::path& path() const { return dir_.path(); }

  private:
    TempDir dir_;
    bool mounted_ = false;
};

}  // namespace herald::test
