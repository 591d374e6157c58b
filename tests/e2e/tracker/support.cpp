// SPDX-License-Identifier: Apache-2.0
#include "tests/e2e/tracker/support.h"

#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cstring>
#include <iostream>
#include <thread>

#include "herald/limits.h"

namespace herald::test {
namespace fs = std::filesystem;
using tracker::BlockRun;

bool can_track() {
    static const Result<void> able = tracker::check_ebpf_requirements();
    if (able) return true;
    std::cout << "SKIPPED: " << able.error().message << "\n";
    return false;
}

uint64_t seed() {
    const char* text = std::getenv("HERALD_SEED");
    const uint64_t value = text ? std::strtoull(text, nullptr, 0) : std::random_device{}();
    std::cout << "seed " << value << std::endl;
    return value;
}

uint64_t by_tier(uint64_t check, uint64_t ci, uint64_t nightly) {
    const char* tier = std::getenv("HERALD_TIER");
    if (!tier) return check;
    if (std::string_view(tier) == "nightly") return nightly;
    return std::string_view(tier) == "ci" ? ci : check;
}

LoopDisk::LoopDisk(uint64_t bytes) : bytes_(bytes) {
    // tmpfs where there is one: fast, and it discards.
    std::string name = fs::exists("/dev/shm") ? "/dev/shm" : fs::temp_directory_path().native();
    name += "/herald-tracker-XXXXXX";
    Fd file(::mkstemp(name.data()));
    REQUIRE(file);
    file_ = name;
    REQUIRE(::ftruncate(file.get(), off_t(bytes)) == 0);
    Fd control = must(open_file("/dev/loop-control", O_RDWR));
    // Others take free devices at the same time.
    for (int attempt = 0; attempt < 50 && !attached_; ++attempt) {
        const int number = ::ioctl(control.get(), LOOP_CTL_GET_FREE);
        REQUIRE(number >= 0);
        path_ = "/dev/loop" + std::to_string(number);
        Fd loop = must(open_file(path_, O_RDWR));
        configure(loop.get());
    }
    REQUIRE(attached_);
}

void LoopDisk::configure(int loop_fd) {
    Fd file = must(open_file(file_, O_RDWR));
    loop_config config{};
    config.fd = uint32_t(file.get());
    config.block_size = 512;
    attached_ = ::ioctl(loop_fd, LOOP_CONFIGURE, &config) == 0;
}

LoopDisk::~LoopDisk() {
    if (attached_) detach();
    ::unlink(file_.c_str());
}

void LoopDisk::detach() {
    Fd loop = must(open_file(path_, O_RDWR));
    // Deferred until the last opener is gone, which is this descriptor.
    for (int i = 0; ::ioctl(loop.get(), LOOP_CLR_FD) != 0 && i < 100; ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    attached_ = false;
}

void LoopDisk::attach_again() {
    for (int i = 0; i < 100 && !attached_; ++i) {
        Fd loop = must(open_file(path_, O_RDWR));
        configure(loop.get());
        if (!attached_) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    REQUIRE(attached_);
}

void LoopDisk::resize(uint64_t bytes) {
    REQUIRE(::truncate(file_.c_str(), off_t(bytes)) == 0);
    Fd loop = must(open_file(path_, O_RDWR));
    REQUIRE(::ioctl(loop.get(), LOOP_SET_CAPACITY) == 0);
    bytes_ = bytes;
}

BpfDir::BpfDir() { fs::create_directory(path()); }
BpfDir::~BpfDir() { unmount(); }
void BpfDir::unmount() { ::umount2(path().c_str(), MNT_DETACH); }

AlignedBytes aligned_bytes(size_t bytes) {
    AlignedBytes memory(static_cast<std::byte*>(std::aligned_alloc(4096, bytes)));
    REQUIRE(memory);
    return memory;
}

namespace {
constexpr uint64_t kRunBlocksMax = 16;
}

Replica::Replica(const fs::path& device, uint64_t bytes)
    : bytes_(bytes),
      fd_(must(open_file(device, O_RDONLY | O_DIRECT))),
      image_(bytes),
      buffer_(aligned_bytes(kRunBlocksMax * HERALD_BLOCK_BYTES)) {}

void Replica::pass(tracker::Tracker& tracker) {
    ++passes_;
    must(tracker.drain());
    uint64_t cursor = 0;
    for (const BlockRun& run : tracker.map().take(UINT64_MAX, kRunBlocksMax, cursor)) {
        const uint64_t offset = run.first * HERALD_BLOCK_BYTES;
        const uint64_t length = std::min(run.count * HERALD_BLOCK_BYTES, bytes_ - offset);
        must(read_exact(fd_.get(), offset, {buffer_.get(), length}, "the source"));
        std::memcpy(image_.data() + offset, buffer_.get(), length);
        tracker.map().emitted(run, ++position_);
    }
    must(tracker.end_pass());
    tracker.map().acknowledge(position_);
}

void Replica::finish(tracker::Tracker& tracker) {
    for (int i = 0; i < 1000; ++i) {
        pass(tracker);
        if (tracker.map().dirty_runs(1).empty() && must(tracker.quiet({}))) {
            // What quiet() found open and forgot is to do.
            pass(tracker);
            return;
        }
        if (i > 2) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    FAIL("the disk does not become clean");
}

std::vector<uint64_t> Replica::differing_blocks() {
    std::vector<uint64_t> differing;
    for (uint64_t offset = 0; offset < bytes_; offset += HERALD_BLOCK_BYTES) {
        const uint64_t length = std::min<uint64_t>(HERALD_BLOCK_BYTES, bytes_ - offset);
        must(read_exact(fd_.get(), offset, {buffer_.get(), length}, "the source"));
        if (std::memcmp(buffer_.get(), image_.data() + offset, length) != 0) {
            differing.push_back(offset / HERALD_BLOCK_BYTES);
        }
    }
    return differing;
}

void Replica::copy_all() {
    must(read_exact(fd_.get(), 0, {buffer_.get(), 0}, "the source"));
    for (uint64_t offset = 0; offset < bytes_; offset += HERALD_BLOCK_BYTES) {
        const uint64_t length = std::min<uint64_t>(HERALD_BLOCK_BYTES, bytes_ - offset);
        must(read_exact(fd_.get(), offset, {buffer_.get(), length}, "the source"));
        std::memcpy(image_.data() + offset, buffer_.get(), length);
    }
}

}  // namespace herald::test
