// SPDX-License-Identifier: Apache-2.0
// Random work on real file systems, drained at random times; at the end, frozen or unmounted, the
// replica equals the disk byte for byte.
#include <fcntl.h>
#include <liburing.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <iostream>
#include <thread>

#include "tests/e2e/tracker/support.h"

using namespace herald;
using namespace herald::test;
using namespace herald::tracker;
namespace fs = std::filesystem;

namespace {

constexpr uint64_t kDiskBytes = 320u << 20;  // mkfs.xfs refuses less than 300 MiB
constexpr uint64_t kFileBytesMax = 4u << 20;
constexpr unsigned kFiles = 24;  // of each writer: at most 192 MiB of the disk

// One writer's random life on a mounted file system. Errors that a full or busy file system gives
// are part of it; only the comparison at the end counts.
class Work {
  public:
    // Files of its own: one that another writer cuts short would kill this one in its mapping.
    Work(fs::path dir, uint64_t number)
        : dir_(std::move(dir)),
          prefix_(std::to_string(number) + "-"),
          random_(number),
          buffer_(aligned_bytes(kFileBytesMax)) {}

    void step() {
        if (random_() % 40 == 0) return trim();
        switch (random_() % 8) {
            case 0:
            case 1:
                buffered();
                break;
            case 2:
                direct();
                break;
            case 3:
                by_io_uring();
                break;
            case 4:
                mapped();
                break;
            case 5: {
                Fd fd = open(O_WRONLY);
                if (fd) (void)::fsync(fd.get());
                break;
            }
            case 6:
                ::unlink(name().c_str());
                break;
            default: {
                Fd fd = open(O_WRONLY | O_CREAT);
                if (fd) (void)!::ftruncate(fd.get(), off_t(random_() % kFileBytesMax));
                break;
            }
        }
    }

  private:
    fs::path name() { return dir_ / (prefix_ + std::to_string(random_() % kFiles)); }
    Fd open(int flags) { return Fd(::open(name().c_str(), flags | O_CLOEXEC, 0600)); }

    // A place and a length in a file, both multiples of `unit`, filled with new content.
    std::pair<uint64_t, uint64_t> fill(uint64_t unit) {
        const uint64_t length = (1 + random_() % (256 * 1024 / unit)) * unit;
        const uint64_t offset = random_() % ((kFileBytesMax - length) / unit + 1) * unit;
        for (uint64_t i = 0; i < length; i += sizeof(uint64_t)) {
            const uint64_t word = random_();
            std::memcpy(buffer_.get() + i, &word, sizeof word);
        }
        return {offset, length};
    }

    void buffered() {
        Fd fd = open(O_WRONLY | O_CREAT);
        const auto [offset, length] = fill(8);
        if (fd) (void)!::pwrite(fd.get(), buffer_.get(), length, off_t(offset));
    }
    void direct() {
        Fd fd = open(O_WRONLY | O_CREAT | O_DIRECT);
        const auto [offset, length] = fill(4096);
        if (fd) (void)!::pwrite(fd.get(), buffer_.get(), length, off_t(offset));
    }
    void by_io_uring() {
        Fd fd = open(O_WRONLY | O_CREAT | (random_() % 2 ? O_DIRECT : 0));
        io_uring ring;
        if (!fd || io_uring_queue_init(8, &ring, 0) != 0) return;
        const auto [offset, length] = fill(4096);
        const uint64_t part = length / 4096 / 8 * 4096;
        unsigned submitted = 0;
        for (uint64_t i = 0; part > 0 && i < 8; ++i) {
            io_uring_sqe* sqe = io_uring_get_sqe(&ring);
            io_uring_prep_write(sqe, fd.get(), buffer_.get() + i * part, unsigned(part),
                                offset + i * part);
            ++submitted;
        }
        if (submitted > 0) io_uring_submit(&ring);
        for (; submitted > 0; --submitted) {
            io_uring_cqe* cqe = nullptr;
            if (io_uring_wait_cqe(&ring, &cqe) != 0) break;
            io_uring_cqe_seen(&ring, cqe);
        }
        io_uring_queue_exit(&ring);
    }
    void mapped() {
        Fd fd = open(O_RDWR | O_CREAT);
        if (!fd) return;
        const auto [offset, length] = fill(4096);
        // Room for it on the disk first: a page that finds none kills the writer.
        if (::posix_fallocate(fd.get(), off_t(offset), off_t(length)) != 0) return;
        void* memory =
            ::mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), off_t(offset));
        if (memory == MAP_FAILED) return;
        std::memcpy(memory, buffer_.get(), length);
        if (random_() % 2) (void)::msync(memory, length, MS_SYNC);
        ::munmap(memory, length);
    }
    void trim() {
        Fd fd(::open(dir_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        fstrim_range range{0, UINT64_MAX, 0};
        if (fd) (void)::ioctl(fd.get(), FITRIM, &range);
    }

    fs::path dir_;
    std::string prefix_;
    std::mt19937_64 random_;
    AlignedBytes buffer_;
};

void run(const std::string& command) {
    INFO(command);
    REQUIRE(std::system(command.c_str()) == 0);
}

struct Mounted {
    Mounted(const fs::path& device, const fs::path& where, const std::string& type) : at(where) {
        fs::create_directory(at);
        const char* options = type == "btrfs" ? "discard=async" : "discard";
        REQUIRE(::mount(device.c_str(), at.c_str(), type.c_str(), 0, options) == 0);
    }
    ~Mounted() { unmount(); }
    void unmount() {
        for (int i = 0; is_mounted && i < 200; ++i) {
            if (::umount(at.c_str()) == 0) is_mounted = false;
            if (is_mounted) ::usleep(20000);
        }
    }
    fs::path at;
    bool is_mounted = true;
};

void round(const std::string& type, uint64_t number, uint64_t dropped_percent) {
    std::mt19937_64 random(number);
    TempDir dir;
    LoopDisk disk(kDiskBytes);
    BpfDir bpf;
    auto tracker = must(
        EbpfTracker::attach({.bpf_dir = bpf.path(),
                             .state_dir = {},
                             .device = disk.path(),
                             .disk = Uuid::random(),
                             .faults = {.drop_completions_percent = uint32_t(dropped_percent)}}));
    // The disk is all zero and so is the replica: from here on tracking alone keeps them equal.
    must(tracker->clear_gap());
    Replica replica(disk.path(), disk.bytes());
    run("mkfs." + type + " -q " + (type == "ext4" ? "-F " : "-f ") + disk.path().native() +
        " > /dev/null");
    Mounted mounted(disk.path(), dir.path() / "mnt", type);

    // What mkfs discarded first, so that the passes beside the work are short.
    replica.pass(*tracker);
    std::atomic<bool> stop = false;
    std::vector<std::thread> writers;
    for (uint64_t w = 0; w < 2; ++w) {
        writers.emplace_back([&, w] {
            Work work(mounted.at, number * 2 + w);
            while (!stop) work.step();
        });
    }
    for (int i = 0; i < 20; ++i) {
        std::this_thread::sleep_for(std::chrono::microseconds(random() % 20000));
        replica.pass(*tracker);
    }
    stop = true;
    for (std::thread& writer : writers) writer.join();

    const bool freeze = random() % 2 == 0;
    Fd frozen;
    if (freeze) {
        frozen = must(open_file(mounted.at, O_RDONLY | O_DIRECTORY));
        REQUIRE(::ioctl(frozen.get(), FIFREEZE, 0) == 0);
    } else {
        mounted.unmount();
        REQUIRE_FALSE(mounted.is_mounted);
    }
    replica.finish(*tracker);
    const auto differing = replica.differing_blocks();
    if (freeze) ::ioctl(frozen.get(), FITHAW, 0);
    const TrackerCounters counters = must(tracker->counters());
    std::cout << fmt::format("{} {}: {} writes, {} passes, {} blocks differ\n", type,
                             freeze ? "frozen" : "unmounted", counters.submissions,
                             replica.passes(), differing.size())
              << std::flush;
    CHECK(differing.empty());
    CHECK(counters.submissions > 0);
}

}  // namespace

TEST_CASE("after random work on a file system the replica equals the disk byte for byte") {
    if (!can_track()) return;
    const uint64_t number = seed();
    const uint64_t rounds = by_tier(6, 12, 96);
    const std::string types[] = {"ext4", "xfs", "btrfs"};
    for (uint64_t i = 0; i < rounds; ++i) {
        INFO("round " << i);
        round(types[i % 3], number + i, i % 6 >= 3 ? 5 : 0);
    }
}
