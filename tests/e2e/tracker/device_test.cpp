// SPDX-License-Identifier: Apache-2.0
// Every way there is to change a disk, on a loop device or on the disk that HERALD_SCRATCH_DISK
// names.
#include <bpf/bpf.h>
#include <liburing.h>
#include <linux/fs.h>
#include <linux/nvme_ioctl.h>
#include <linux/types.h>
#include <scsi/sg.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <iostream>

#include "herald/abi/ebpf_tracker.h"
#include "herald/limits.h"
#include "tests/e2e/tracker/support.h"

using namespace herald;
using namespace herald::test;
using namespace herald::tracker;
using Catch::Matchers::Contains;

namespace {

struct Tracked {
    explicit Tracked(EbpfFaults faults = {}) : disk(8u << 20) {
        options.bpf_dir = bpf.path();
        options.device = disk.path();
        options.disk = Uuid::random();
        options.faults = faults;
        tracker = must(EbpfTracker::attach(options));
        must(tracker->clear_gap());
    }
    // Blocks that a pass finds changed, when it reads and sends all of them.
    std::vector<BlockRun> pass() {
        must(tracker->drain());
        auto runs = tracker->map().dirty_runs(100);
        uint64_t cursor = 0;
        for (const BlockRun& run : tracker->map().take(UINT64_MAX, UINT64_MAX, cursor)) {
            tracker->map().emitted(run, ++position);
        }
        tracker->map().acknowledge(position);
        must(tracker->end_pass());
        return runs;
    }
    uint64_t count_of(uint32_t counter) {
        const Fd map(bpf_obj_get((bpf.path() / to_string(options.disk) / "counters").c_str()));
        REQUIRE(map);
        std::vector<uint64_t> values(4096, 0);
        REQUIRE(bpf_map_lookup_elem(map.get(), &counter, values.data()) == 0);
        uint64_t sum = 0;
        for (const uint64_t value : values) sum += value;
        return sum;
    }
    void write(uint64_t block, int flags = 0) {
        Fd fd = must(open_file(disk.path(), O_WRONLY | O_DIRECT | flags));
        AlignedBytes bytes = aligned_bytes(4096);
        std::memset(bytes.get(), 0x5a, 4096);
        must(write_exact(fd.get(), block * HERALD_BLOCK_BYTES, {bytes.get(), 4096}, "the disk"));
    }
    // False where the disk cannot.
    bool range(unsigned long request, uint64_t first_block, uint64_t blocks) {
        Fd fd = must(open_file(disk.path(), O_WRONLY));
        uint64_t range[2] = {first_block * HERALD_BLOCK_BYTES, blocks * HERALD_BLOCK_BYTES};
        const bool done = ::ioctl(fd.get(), request, range) == 0;
        INFO(strerror(errno));
        REQUIRE((done || errno == EOPNOTSUPP));
        return done;
    }

    ScratchDisk disk;
    BpfDir bpf;
    EbpfOptions options;
    std::unique_ptr<EbpfTracker> tracker;
    uint64_t position = 0;
};

const std::vector<BlockRun> kNothing;

bool is_nvme(const std::filesystem::path& path) {
    return path.filename().native().starts_with("nvme");
}

// Discards of one block each, submitted at once so that they become one request; false where the
// kernel has no asynchronous ones.
bool discard_together(const std::filesystem::path& path, const std::vector<uint64_t>& blocks) {
    constexpr uint32_t kDiscardCommand = _IO(0x12, 0);  // BLOCK_URING_CMD_DISCARD
    Fd fd = must(open_file(path, O_RDWR));
    io_uring ring;
    REQUIRE(io_uring_queue_init(16, &ring, 0) == 0);
    for (const uint64_t block : blocks) {
        io_uring_sqe* sqe = io_uring_get_sqe(&ring);
        io_uring_prep_rw(IORING_OP_URING_CMD, sqe, fd.get(), nullptr, 0, 0);
        sqe->cmd_op = kDiscardCommand;
        sqe->addr = block * HERALD_BLOCK_BYTES;
        sqe->addr3 = HERALD_BLOCK_BYTES;
    }
    REQUIRE(io_uring_submit(&ring) == int(blocks.size()));
    int worst = 0;
    for (size_t i = 0; i < blocks.size(); ++i) {
        io_uring_cqe* cqe = nullptr;
        REQUIRE(io_uring_wait_cqe(&ring, &cqe) == 0);
        worst = std::min(worst, cqe->res);
        io_uring_cqe_seen(&ring, cqe);
    }
    io_uring_queue_exit(&ring);
    REQUIRE((worst == 0 || worst == -EOPNOTSUPP || worst == -EINVAL || worst == -ENOTTY));
    return worst == 0;
}

// One block of zeroes by a command of our own making; false where the disk takes none.
bool pass_through_write(const std::filesystem::path& path, uint64_t block) {
    Fd fd = must(open_file(path, O_RDWR));
    AlignedBytes bytes = aligned_bytes(4096);
    std::memset(bytes.get(), 0, 4096);
    const auto lba = uint32_t(block * HERALD_BLOCK_BYTES / 512);
    if (is_nvme(path)) {
        nvme_passthru_cmd command{};
        command.opcode = 0x01;
        command.nsid = uint32_t(::ioctl(fd.get(), NVME_IOCTL_ID));
        command.addr = reinterpret_cast<uint64_t>(bytes.get());
        command.data_len = 4096;
        command.cdw10 = lba;
        command.cdw12 = 7;
        REQUIRE(::ioctl(fd.get(), NVME_IOCTL_IO_CMD, &command) == 0);
        return true;
    }
    uint8_t write10[10] = {
        0x2a, 0, uint8_t(lba >> 24), uint8_t(lba >> 16), uint8_t(lba >> 8), uint8_t(lba), 0, 0,
        8,    0};
    sg_io_hdr_t header{};
    header.interface_id = 'S';
    header.dxfer_direction = SG_DXFER_TO_DEV;
    header.cmd_len = sizeof write10;
    header.cmdp = write10;
    header.dxfer_len = 4096;
    header.dxferp = bytes.get();
    header.timeout = 10000;
    if (::ioctl(fd.get(), SG_IO, &header) != 0) return false;
    REQUIRE((header.info & SG_INFO_OK_MASK) == SG_INFO_OK);
    return true;
}

}  // namespace

TEST_CASE("each kind of write marks its blocks once, and a flush none") {
    if (!can_track()) return;
    Tracked tracked;
    tracked.write(3);
    CHECK(tracked.pass() == std::vector<BlockRun>{{3, 1}});
    // A device with a cache and without FUA gets a flush after it, and completes it twice.
    tracked.write(5, O_DSYNC);
    CHECK(tracked.pass() == std::vector<BlockRun>{{5, 1}});
    if (tracked.range(BLKZEROOUT, 7, 2)) {
        CHECK(tracked.pass() == std::vector<BlockRun>{{7, 2}});
    }
    for (const unsigned long request : {BLKDISCARD, BLKSECDISCARD}) {
        if (tracked.range(request, 20, 70)) {
            CHECK(tracked.pass() == std::vector<BlockRun>{{20, 70}});
        } else {
            std::cout << "this disk has no " << (request == BLKDISCARD ? "discard" : "secure erase")
                      << "\n";
        }
    }
    Fd fd = must(open_file(tracked.disk.path(), O_WRONLY));
    REQUIRE(::fsync(fd.get()) == 0);
    CHECK(tracked.pass() == kNothing);
    CHECK(must(tracked.tracker->counters()).open_extents == 0);
    CHECK(tracked.tracker->gap() == std::nullopt);
    CHECK(tracked.count_of(HERALD_EBPF_TABLE_FULL) == 0);
}

TEST_CASE("a passthrough write is a gap when it is issued, and one when it completes") {
    if (!can_track()) return;
    Tracked tracked;
    if (!pass_through_write(tracked.disk.path(), 9)) {
        std::cout << "this disk takes no commands of others\n";
        return;
    }
    must(tracked.tracker->drain());
    CHECK_THAT(tracked.tracker->gap().value_or("no gap"), Contains("passthrough"));
    CHECK(tracked.count_of(HERALD_EBPF_PASSTHROUGH) == 2);
}

TEST_CASE("a table full of requests that are no more is released to those that are") {
    if (!can_track()) return;
    Tracked tracked;
    const Fd map(bpf_obj_get(
        (tracked.bpf.path() / to_string(tracked.options.disk) / "open_writes").c_str()));
    REQUIRE(map);
    bpf_map_info info{};
    uint32_t info_bytes = sizeof info;
    REQUIRE(bpf_obj_get_info_by_fd(map.get(), &info, &info_bytes) == 0);
    const size_t bytes = info.max_entries * sizeof(herald_open_write_abi);
    void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, map.get(), 0);
    REQUIRE(memory != MAP_FAILED);
    auto* slots = static_cast<herald_open_write_abi*>(memory);
    // Names that no request has: not a multiple of their alignment.
    for (uint32_t i = 0; i < info.max_entries; ++i) slots[i].request = 2 * i + 3;
    tracked.write(3);
    const uint64_t without = tracked.count_of(HERALD_EBPF_TABLE_FULL);
    CHECK(without > 0);
    CHECK(tracked.pass() == std::vector<BlockRun>{{3, 1}});
    for (uint64_t block = 0; block < 64; ++block) tracked.write(block);
    CHECK(tracked.count_of(HERALD_EBPF_TABLE_FULL) == without);
    CHECK(tracked.pass() == std::vector<BlockRun>{{0, 64}});
    CHECK(must(tracked.tracker->counters()).open_extents == 0);
    CHECK(tracked.tracker->gap() == std::nullopt);
    ::munmap(memory, bytes);
}

// For a disk of 64 TiB that QEMU makes up.
TEST_CASE("the largest disk is tracked to its last block", "[.largest]") {
    Tracked tracked({.drop_completions_percent = 100});
    REQUIRE(tracked.disk.bytes() == HERALD_DISK_BYTES_MAX);
    const uint64_t blocks = HERALD_DISK_BYTES_MAX / HERALD_BLOCK_BYTES;
    tracked.write(blocks - 1);
    CHECK(tracked.pass() == std::vector<BlockRun>{{blocks - 1, 1}});
    // Discards of its ends, gathered into one request: what is open is all of it, 2^30 blocks.
    if (!discard_together(tracked.disk.path(), {0, 1, blocks / 2, blocks - 1})) {
        std::cout << "this kernel has no asynchronous discard (Linux 6.12 does)\n";
        return;
    }
    CHECK(tracked.pass() == std::vector<BlockRun>{{0, 2}, {blocks / 2, 1}, {blocks - 1, 1}});
    REQUIRE(must(tracked.tracker->counters()).open_extents == 1);
    CHECK(tracked.tracker->map().todo_blocks() == blocks);
}

// For a disk below a device that says it is dm-multipath's.
TEST_CASE("one path of a multipath device is refused", "[.multipath]") {
    ScratchDisk disk(8u << 20);
    BpfDir bpf;
    const auto attached = EbpfTracker::attach({.bpf_dir = bpf.path(),
                                               .state_dir = {},
                                               .device = disk.path(),
                                               .disk = Uuid::random(),
                                               .faults = {}});
    REQUIRE_FALSE(attached.has_value());
    CHECK_THAT(attached.error().message, Contains("multipath"));
}

TEST_CASE("a bio-based device is refused by name", "[.refused]") {
    ScratchDisk disk(8u << 20);
    BpfDir bpf;
    const auto attached = EbpfTracker::attach({.bpf_dir = bpf.path(),
                                               .state_dir = {},
                                               .device = disk.path(),
                                               .disk = Uuid::random(),
                                               .faults = {}});
    REQUIRE_FALSE(attached.has_value());
    CHECK_THAT(attached.error().message,
               Contains("cannot be tracked") && Contains(disk.path().filename().native()));
    std::cout << attached.error().message << "\n";
}
