// SPDX-License-Identifier: Apache-2.0
// The table of open writes, with a write that stays in flight as long as the test wants: the
// backing file's file system is frozen, so the loop device cannot finish it.
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cstring>
#include <thread>

#include "herald/limits.h"
#include "tests/e2e/tracker/support.h"

using namespace herald;
using namespace herald::test;
using namespace herald::tracker;

namespace {

// A loop disk over a file of an ext4 over another loop disk.
struct StallingDisk {
    StallingDisk() : below(64u << 20) {
        REQUIRE(std::system(("mkfs.ext4 -q -F " + below.path().native()).c_str()) == 0);
        std::filesystem::create_directory(mount_point());
        REQUIRE(::mount(below.path().c_str(), mount_point().c_str(), "ext4", 0, nullptr) == 0);
        disk = std::make_unique<LoopDisk>(8u << 20, mount_point());
        frozen = must(open_file(mount_point(), O_RDONLY | O_DIRECTORY));
    }
    ~StallingDisk() {
        thaw();
        frozen.reset();
        disk.reset();
        for (int i = 0; ::umount(mount_point().c_str()) != 0 && i < 100; ++i) ::usleep(20000);
    }
    void freeze() { REQUIRE(::ioctl(frozen.get(), FIFREEZE, 0) == 0); }
    void thaw() { ::ioctl(frozen.get(), FITHAW, 0); }
    std::filesystem::path mount_point() const { return dir.path() / "mnt"; }

    TempDir dir;
    LoopDisk below;
    std::unique_ptr<LoopDisk> disk;
    Fd frozen;
};

void write_block(const std::filesystem::path& device, uint64_t block) {
    auto fd = open_file(device, O_WRONLY | O_DIRECT);
    AlignedBytes bytes = aligned_bytes(4096);
    std::memset(bytes.get(), 0x5a, 4096);
    if (!fd || !write_exact(fd->get(), block * HERALD_BLOCK_BYTES, {bytes.get(), 4096}, "disk")) {
        std::abort();
    }
}

template <class Condition>
bool soon(Condition condition) {
    for (int i = 0; i < 200; ++i) {
        if (condition()) return true;
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
}

// A pass whose reading and sending succeeded: nothing of what was to do is left.
void pass_without_reading(EbpfTracker& tracker, uint64_t position) {
    must(tracker.drain());
    uint64_t cursor = 0;
    for (const BlockRun& run : tracker.map().take(UINT64_MAX, UINT64_MAX, cursor)) {
        tracker.map().emitted(run, position);
    }
    tracker.map().acknowledge(position);
    must(tracker.end_pass());
}

const std::vector<BlockRun> kNothing;
const std::vector<BlockRun> kTheBlock{{5, 1}};

}  // namespace

TEST_CASE("a write in flight during a pass is to do again after it, until it completed") {
    if (!can_track()) return;
    StallingDisk stalling;
    BpfDir bpf;
    const bool table_left_out = GENERATE(false, true);
    const auto dropped = uint32_t(GENERATE(0, 100));
    auto tracker = must(EbpfTracker::attach({.bpf_dir = bpf.path(),
                                             .state_dir = {},
                                             .device = stalling.disk->path(),
                                             .disk = Uuid::random(),
                                             .faults = {.leave_out_open_writes = table_left_out,
                                                        .drop_completions_percent = dropped}}));
    stalling.freeze();
    std::thread writer(write_block, stalling.disk->path(), 5);
    const bool submitted = soon([&] { return must(tracker->counters()).submissions == 1; });
    pass_without_reading(*tracker, 1);
    const auto after_first = tracker->map().dirty_runs(10);
    pass_without_reading(*tracker, 2);
    const auto after_second = tracker->map().dirty_runs(10);
    const auto open = must(tracker->counters()).open_extents;
    const Extent there{5 * HERALD_BLOCK_BYTES + 4096, 512};
    const Extent elsewhere{6 * HERALD_BLOCK_BYTES, 1 << 20};
    const bool quiet_there = must(tracker->quiet(std::span(&there, 1)));
    const bool quiet_elsewhere = must(tracker->quiet(std::span(&elsewhere, 1)));
    const bool quiet_anywhere = must(tracker->quiet({}));
    stalling.thaw();
    writer.join();
    REQUIRE(submitted);
    CHECK_FALSE(quiet_anywhere);
    CHECK(quiet_elsewhere);
    if (table_left_out) {
        // What the table is for: without it the passes forget a write that has not happened yet.
        CHECK(after_first == kNothing);
    } else {
        CHECK(after_first == kTheBlock);
        CHECK(after_second == kTheBlock);
        CHECK(open == 1);
        CHECK_FALSE(quiet_there);
        // Dirty once more after it completed, whether or not the completion was seen.
        must(tracker->drain());
        CHECK(tracker->map().dirty_runs(10) == kTheBlock);
        // And then, also with the completion never seen, clean and closed.
        uint64_t position = 2;
        CHECK(soon([&] {
            pass_without_reading(*tracker, ++position);
            return tracker->map().dirty_runs(10) == kNothing && must(tracker->quiet({})) &&
                   tracker->map().dirty_runs(10) == kNothing;
        }));
        CHECK(must(tracker->counters()).open_extents == 0);
    }
}

namespace {

// Partitions 1 and 2 of a disk, 1 MiB in and 4 MiB in; gone with the object.
struct TwoPartitions {
    explicit TwoPartitions(const std::filesystem::path& disk) : disk_(disk) {
        for (const int number : {1, 2}) {
            REQUIRE(run(fmt::format("addpart {} {} {} {}", disk.native(), number,
                                    number == 1 ? 2048 : 8192, 2048)));
        }
    }
    ~TwoPartitions() {
        for (const int number : {1, 2}) {
            for (int i = 0; i < 100; ++i) {
                if (run(fmt::format("delpart {} {} 2>/dev/null", disk_.native(), number))) break;
                ::usleep(20000);
            }
        }
    }
    std::filesystem::path path(int number) const {
        return fmt::format("{}p{}", disk_.native(), number);
    }

  private:
    static bool run(const std::string& command) { return std::system(command.c_str()) == 0; }
    std::filesystem::path disk_;
};

constexpr Extent kFirst{1u << 20, 1u << 20};
constexpr Extent kSecond{4u << 20, 1u << 20};

}  // namespace

TEST_CASE("a completion missed on one partition is got over while another one is busy") {
    if (!can_track()) return;
    StallingDisk stalling;
    TwoPartitions parts(stalling.disk->path());
    BpfDir bpf;
    auto tracker = must(EbpfTracker::attach({.bpf_dir = bpf.path(),
                                             .state_dir = {},
                                             .device = stalling.disk->path(),
                                             .disk = Uuid::random(),
                                             .faults = {.drop_completions_percent = 100}}));
    // Three writes, three entries, the last one held in flight. The kernel may serve two of them
    // with one request, whose entry they then share: once more, until it did not.
    std::thread writer;
    bool three = false;
    for (int tries = 0; !three && tries < 20; ++tries) {
        if (writer.joinable()) {
            stalling.thaw();
            writer.join();
        }
        write_block(parts.path(1), 5);
        write_block(stalling.disk->path(), 3);
        stalling.freeze();
        const auto before = must(tracker->counters()).submissions;
        writer = std::thread(write_block, parts.path(2), 5);
        three = soon([&] { return must(tracker->counters()).submissions == before + 1; }) &&
                must(tracker->counters()).open_extents == 3;
    }
    const bool at_once = must(tracker->quiet(std::span(&kFirst, 1)));
    pass_without_reading(*tracker, 1);
    const auto dirty = tracker->map().dirty_runs(10);
    const bool first = soon([&] { return must(tracker->quiet(std::span(&kFirst, 1))); });
    // Neither the write under way nor the one that may be, for all that the counts say.
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    const bool second = must(tracker->quiet(std::span(&kSecond, 1)));
    const Extent start{0, 1u << 20};
    const bool whole_disk = must(tracker->quiet(std::span(&start, 1)));
    const auto after = must(tracker->counters()).open_extents;
    stalling.thaw();
    writer.join();
    REQUIRE(three);
    CHECK_FALSE(at_once);
    CHECK(dirty.size() == 3);
    CHECK(first);
    CHECK_FALSE(second);
    CHECK_FALSE(whole_disk);
    CHECK(after == 2);
    CHECK(soon([&] { return must(tracker->quiet({})); }));
    CHECK(must(tracker->counters()).open_extents == 0);
}
