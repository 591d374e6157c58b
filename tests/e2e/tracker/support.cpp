// SPDX-License-Identifier: Apache-2.0
#include "tests/e2e/tracker/support.h"

#include <liburing.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <unistd.h>

#include <algorithm>
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

LoopDisk::LoopDisk(uint64_t bytes, fs::path dir) : path_(own_.path()), bytes_(bytes) {
    if (dir.empty()) dir = fs::exists("/dev/shm") ? "/dev/shm" : fs::temp_directory_path();
    std::string name = (dir / "herald-tracker-XXXXXX").native();
    Fd file(::mkstemp(name.data()));
    REQUIRE(file);
    file_ = name;
    REQUIRE(::ftruncate(file.get(), off_t(bytes)) == 0);
    Fd loop = must(open_file(path_, O_RDWR));
    configure(loop.get());
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

bool ScratchDisk::is_given() { return std::getenv("HERALD_SCRATCH_DISK") != nullptr; }

ScratchDisk::ScratchDisk(uint64_t bytes) : bytes_(bytes) {
    if (is_given()) {
        path_ = std::getenv("HERALD_SCRATCH_DISK");
        Fd fd = must(open_file(path_, O_RDONLY));
        bytes_ = must(size_of(fd.get(), path_.native()));
    } else {
        loop_ = std::make_unique<LoopDisk>(bytes);
        path_ = loop_->path();
    }
}

BpfDir::BpfDir() { fs::create_directory(path()); }
BpfDir::~BpfDir() { unmount(); }
void BpfDir::unmount() { ::umount2(path().c_str(), MNT_DETACH); }

AlignedBytes aligned_bytes(size_t bytes) {
    AlignedBytes memory(static_cast<std::byte*>(std::aligned_alloc(4096, bytes)));
    if (!memory) std::abort();  // not REQUIRE: writers' threads come here too
    return memory;
}

void write_burst(const fs::path& device, uint64_t bytes, uint64_t number,
                 const std::atomic<bool>& stop) {
    auto fd = open_file(device, O_WRONLY | O_DIRECT);
    if (!fd) std::abort();
    io_uring ring;
    if (io_uring_queue_init(kWriteDepth, &ring, 0) != 0) std::abort();
    AlignedBytes buffers = aligned_bytes(kWriteDepth * kWriteBytes);
    std::mt19937_64 random(number);
    const auto write = [&](unsigned i) {
        std::byte* buffer = buffers.get() + i * kWriteBytes;
        const uint64_t stamp = random();
        for (unsigned at = 0; at < kWriteBytes; at += 512) {
            std::memcpy(buffer + at, &stamp, sizeof stamp);
        }
        io_uring_sqe* sqe = io_uring_get_sqe(&ring);
        io_uring_prep_write(sqe, fd->get(), buffer, kWriteBytes,
                            random() % (bytes / kWriteBytes) * kWriteBytes);
        io_uring_sqe_set_data64(sqe, i);
    };
    for (unsigned i = 0; i < kWriteDepth; ++i) write(i);
    io_uring_submit(&ring);
    for (unsigned in_flight = kWriteDepth; in_flight > 0;) {
        io_uring_cqe* cqe = nullptr;
        if (io_uring_wait_cqe(&ring, &cqe) != 0) continue;
        if (cqe->res != int(kWriteBytes)) std::abort();
        const unsigned i = unsigned(cqe->user_data);
        io_uring_cqe_seen(&ring, cqe);
        --in_flight;
        if (stop) continue;
        write(i);
        io_uring_submit(&ring);
        ++in_flight;
    }
    io_uring_queue_exit(&ring);
}

namespace {
constexpr uint64_t kRunBlocksMax = 16;

std::span<std::byte> shared_zeroes(uint64_t bytes) {
    void* memory =
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(memory != MAP_FAILED);
    return {static_cast<std::byte*>(memory), bytes};
}
}  // namespace

Replica::Replica(const fs::path& device, uint64_t bytes)
    : bytes_(bytes),
      fd_(must(open_file(device, O_RDONLY | O_DIRECT))),
      image_(shared_zeroes(bytes)),
      buffer_(aligned_bytes(kRunBlocksMax * HERALD_BLOCK_BYTES)) {}

Replica::~Replica() { ::munmap(image_.data(), image_.size()); }

void Replica::pass(tracker::Tracker& tracker) {
    const auto done = [&](std::string_view step) {
        if (after) after(step);
    };
    ++passes_;
    must(tracker.drain());
    done("drain");
    uint64_t cursor = 0;
    const auto runs = tracker.map().take(UINT64_MAX, kRunBlocksMax, cursor);
    done("take");
    for (const BlockRun& run : runs) {
        const uint64_t offset = run.first * HERALD_BLOCK_BYTES;
        const uint64_t length = std::min(run.count * HERALD_BLOCK_BYTES, bytes_ - offset);
        must(read_exact(fd_.get(), offset, {buffer_.get(), length}, "the source"));
        done("read");
        std::memcpy(image_.data() + offset, buffer_.get(), length);
        tracker.map().emitted(run, ++position_);
        done("emit");
    }
    must(tracker.end_pass());
    done("end_pass");
    tracker.map().acknowledge(position_);
    done("acknowledge");
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

std::vector<DifferingBlock> Replica::differing_blocks() {
    std::vector<DifferingBlock> differing;
    const auto is_zero = [](const std::byte* sector) {
        return std::all_of(sector, sector + HERALD_SECTOR_BYTES,
                           [](std::byte byte) { return byte == std::byte{0}; });
    };
    for (uint64_t offset = 0; offset < bytes_; offset += HERALD_BLOCK_BYTES) {
        const uint64_t length = std::min<uint64_t>(HERALD_BLOCK_BYTES, bytes_ - offset);
        must(read_exact(fd_.get(), offset, {buffer_.get(), length}, "the source"));
        if (std::memcmp(buffer_.get(), image_.data() + offset, length) == 0) continue;
        DifferingBlock block{offset / HERALD_BLOCK_BYTES, 0, true, true};
        for (uint64_t at = 0; at < length; at += HERALD_SECTOR_BYTES) {
            const std::byte* on_disk = buffer_.get() + at;
            const std::byte* in_replica = image_.data() + offset + at;
            if (std::memcmp(on_disk, in_replica, HERALD_SECTOR_BYTES) == 0) continue;
            ++block.sectors;
            block.disk_is_zero &= is_zero(on_disk);
            block.replica_is_zero &= is_zero(in_replica);
        }
        differing.push_back(block);
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
