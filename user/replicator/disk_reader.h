// SPDX-License-Identifier: Apache-2.0
// DiskReader reads chunks of one disk with O_DIRECT (the block device's page cache is stale for
// file data), several in flight, into a fixed pool of aligned buffers.
// Promise: every submitted chunk comes back once, with all its bytes or as failed.
// Where it waits for the disk it says so in the DiskWait: a disk that hangs keeps it for ever, in
// the destructor, too, as the kernel may still write into the buffers.
// Callers: one thread. Borrows the DiskWait. Owns: descriptor, engine, buffers.
#pragma once

#include <filesystem>
#include <memory>
#include <vector>

#include "user/base/file.h"
#include "user/base/io_engine.h"
#include "user/replicator/disk_wait.h"
#include "user/replicator/scanner.h"

namespace herald::replicator {

class DiskReader {
  public:
    static Result<std::unique_ptr<DiskReader>> open(const std::filesystem::path& disk,
                                                    IoEngineKind kind, size_t depth,
                                                    size_t buffer_bytes, DiskWait& wait);
    ~DiskReader();

    struct Done {
        Chunk chunk;
        ByteView data;  // valid during the call
        int error = 0;  // errno; 0: data is whole
    };
    bool room() const { return !free_.empty(); }
    size_t in_flight() const { return buffers_.size() - free_.size(); }
    uint64_t bytes_in_flight() const { return bytes_in_flight_; }
    // room() must hold and the chunk fit a buffer.
    Result<void> submit(const Chunk& chunk);
    // Waits until at least one is done (when any is in flight), but not for longer than that, and
    // hands out all that are.
    Result<void> wait(const std::function<Result<void>(const Done&)>& take,
                      DiskWait::Clock::time_point until = DiskWait::Clock::time_point::max());
    // Waits for all in flight and forgets them.
    Result<void> drop();

    IoEngineKind engine_kind() const { return engine_->kind(); }
    uint64_t read_bytes() const { return read_bytes_; }
    int fd() const { return fd_.get(); }

  private:
    explicit DiskReader(DiskWait& wait) : wait_(wait) {}
    struct Buffer {
        std::byte* memory = nullptr;
        Chunk chunk;
    };
    DiskWait& wait_;
    std::string name_;
    Fd fd_;
    size_t buffer_bytes_ = 0;
    std::unique_ptr<std::byte, decltype(&std::free)> memory_{nullptr, &std::free};
    std::vector<Buffer> buffers_;
    std::vector<size_t> free_;
    std::unique_ptr<IoEngine> engine_;  // after the buffers: it is gone before they are
    uint64_t bytes_in_flight_ = 0;
    uint64_t read_bytes_ = 0;
};

}  // namespace herald::replicator
