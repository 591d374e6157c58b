// SPDX-License-Identifier: Apache-2.0
// What the tracker's tests on live devices share: a scratch loop disk, a private bpffs, and the
// smallest replicator there can be.
// Promise: nothing of them is left behind when they go out of scope.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "tests/catch.hpp"
#include "tests/e2e/own_loop.h"
#include "tests/temp_dir.h"
#include "user/base/file.h"
#include "user/tracker/ebpf_tracker.h"

namespace herald::test {

// The value, or a failed test with the error's message.
template <class T>
T must(Result<T> result) {
    INFO((result ? std::string() : result.error().message));
    REQUIRE(result.has_value());
    if constexpr (!std::is_void_v<T>) return std::move(*result);
}

// False, after printing why, where live devices cannot be tracked.
bool can_track();
// From HERALD_SEED, else random; printed.
uint64_t seed();
// A count for the tier of HERALD_TIER.
uint64_t by_tier(uint64_t check, uint64_t ci, uint64_t nightly);

// A loop device over a sparse file of its own.
class LoopDisk {
  public:
    // Over a file in `dir`; none: in memory where there is a tmpfs, which also discards.
    explicit LoopDisk(uint64_t bytes, std::filesystem::path dir = {});
    LoopDisk(const LoopDisk&) = delete;
    LoopDisk& operator=(const LoopDisk&) = delete;
    ~LoopDisk();

    const std::filesystem::path& path() const { return path_; }
    uint64_t bytes() const { return bytes_; }
    // Under the same name again, with the same file.
    void detach();
    void attach_again();
    void resize(uint64_t bytes);

  private:
    void configure(int loop_fd);
    OwnLoop own_;
    std::filesystem::path file_;
    std::filesystem::path path_;
    uint64_t bytes_;
    bool attached_ = false;
};

// What a test may write all over: the disk that HERALD_SCRATCH_DISK names (tests/vm gives one of
// each kind), else a loop device of this size.
class ScratchDisk {
  public:
    explicit ScratchDisk(uint64_t bytes);
    // True when it is none of ours: real hardware or a virtual machine's.
    static bool is_given();
    const std::filesystem::path& path() const { return path_; }
    uint64_t bytes() const { return bytes_; }

  private:
    std::unique_ptr<LoopDisk> loop_;
    std::filesystem::path path_;
    uint64_t bytes_;
};

// A directory with a bpffs on it.
class BpfDir {
  public:
    BpfDir();
    BpfDir(const BpfDir&) = delete;
    BpfDir& operator=(const BpfDir&) = delete;
    ~BpfDir();
    std::filesystem::path path() const { return dir_.path() / "bpf"; }
    std::filesystem::path state_dir() const { return dir_.path() / "state"; }
    void unmount();

  private:
    TempDir dir_;
};

struct FreeAligned {
    void operator()(std::byte* memory) const { std::free(memory); }
};
using AlignedBytes = std::unique_ptr<std::byte[], FreeAligned>;
AlignedBytes aligned_bytes(size_t bytes);

// O_DIRECT writes of kWriteBytes at random places below `bytes`, kWriteDepth in flight by io_uring,
// each with content of its own, until told to stop.
constexpr unsigned kWriteDepth = 32;
constexpr unsigned kWriteBytes = 4096;
void write_burst(const std::filesystem::path& device, uint64_t bytes, uint64_t number,
                 const std::atomic<bool>& stop);

// Where a disk and its replica have different content.
struct DifferingBlock {
    uint64_t number = 0;
    uint64_t sectors = 0;       // that differ
    bool disk_is_zero = false;  // all of those
    bool replica_is_zero = false;
};

// Copies dirty blocks to an image in memory, as a replicator would to a server.
class Replica {
  public:
    Replica(const std::filesystem::path& device, uint64_t bytes);
    Replica(const Replica&) = delete;
    Replica& operator=(const Replica&) = delete;
    ~Replica();

    // One drain, one reading of everything to do, one acknowledgement.
    void pass(tracker::Tracker& tracker);
    // Called with the name of each step of a pass once it is done: a place to die at.
    std::function<void(std::string_view)> after;
    // Passes until nothing is dirty or open. Nobody writes meanwhile, or not for long.
    void finish(tracker::Tracker& tracker);
    // Blocks in which the device, read past its page cache, differs.
    std::vector<DifferingBlock> differing_blocks();
    // Takes the device as it is: the state after a full copy.
    void copy_all();
    uint64_t passes() const { return passes_; }

  private:
    uint64_t bytes_;
    Fd fd_;
    std::span<std::byte> image_;  // shared with children, so that it outlives a killed one
    AlignedBytes buffer_;
    uint64_t position_ = 0;
    uint64_t passes_ = 0;
};

}  // namespace herald::test
