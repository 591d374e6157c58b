// SPDX-License-Identifier: Apache-2.0
// The race between writes in flight and a drainer in a tight loop: bursts of O_DIRECT writes by
// io_uring, 32 in flight, and a comparison after the last drain. Random rounds on a file system do
// not find a lost write; this does.
#include <liburing.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <iostream>
#include <thread>

#include "tests/e2e/tracker/support.h"

using namespace herald;
using namespace herald::test;
using tracker::EbpfFaults;
using tracker::EbpfTracker;

namespace {

constexpr uint64_t kDiskBytes = 8u << 20;
constexpr unsigned kDepth = 32;
constexpr unsigned kWriteBytes = 4096;

// Random 4 KiB writes until told to stop; each has content of its own.
void burst(const std::filesystem::path& device, uint64_t number, std::atomic<bool>& stop) {
    auto fd = open_file(device, O_WRONLY | O_DIRECT);
    if (!fd) std::abort();
    io_uring ring;
    if (io_uring_queue_init(kDepth, &ring, 0) != 0) std::abort();
    AlignedBytes buffers = aligned_bytes(kDepth * kWriteBytes);
    std::mt19937_64 random(number);
    const auto write = [&](unsigned i) {
        std::byte* buffer = buffers.get() + i * kWriteBytes;
        const uint64_t stamp = random();
        for (unsigned at = 0; at < kWriteBytes; at += 512) {
            std::memcpy(buffer + at, &stamp, sizeof stamp);
        }
        io_uring_sqe* sqe = io_uring_get_sqe(&ring);
        io_uring_prep_write(sqe, fd->get(), buffer, kWriteBytes,
                            random() % (kDiskBytes / kWriteBytes) * kWriteBytes);
        io_uring_sqe_set_data64(sqe, i);
    };
    for (unsigned i = 0; i < kDepth; ++i) write(i);
    io_uring_submit(&ring);
    for (unsigned in_flight = kDepth; in_flight > 0;) {
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

struct Outcome {
    uint64_t rounds = 0;
    uint64_t rounds_that_lost = 0;
    uint64_t passes = 0;
    tracker::TrackerCounters counters;
    std::optional<std::string> gap;
};

// Rounds until the count, or until one loses data.
Outcome race(const char* name, EbpfFaults faults, uint64_t rounds, uint64_t number,
             bool until_lost = false) {
    LoopDisk disk(kDiskBytes);
    BpfDir bpf;
    auto tracker = must(EbpfTracker::attach({.bpf_dir = bpf.path(),
                                             .state_dir = {},
                                             .device = disk.path(),
                                             .disk = Uuid::random(),
                                             .faults = faults}));
    must(tracker->clear_gap());
    Replica replica(disk.path(), disk.bytes());
    Outcome outcome;
    const auto start = std::chrono::steady_clock::now();
    while (outcome.rounds < rounds && !(until_lost && outcome.rounds_that_lost > 0)) {
        std::atomic<bool> stop = false;
        std::thread writer(burst, disk.path(), number + outcome.rounds, std::ref(stop));
        const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(60);
        while (std::chrono::steady_clock::now() < end) replica.pass(*tracker);
        stop = true;
        // The drainer stays in its loop while the last writes complete.
        std::thread joiner([&] {
            writer.join();
            stop = false;
        });
        while (stop) replica.pass(*tracker);
        joiner.join();
        replica.finish(*tracker);
        ++outcome.rounds;
        if (!replica.differing_blocks().empty()) {
            ++outcome.rounds_that_lost;
            replica.copy_all();
        }
    }
    outcome.passes = replica.passes();
    outcome.counters = must(tracker->counters());
    outcome.gap = tracker->gap();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    std::cout << fmt::format(
                     "{}: {} of {} rounds lost data; {} writes, {} passes, {} events skipped by "
                     "the kernel, {:.1f} s",
                     name, outcome.rounds_that_lost, outcome.rounds, outcome.counters.submissions,
                     outcome.passes, outcome.counters.missed_events, seconds.count())
              << std::endl;
    return outcome;
}

}  // namespace

TEST_CASE("no write is lost between a burst in flight and a drainer in a tight loop") {
    if (!can_track()) return;
    const uint64_t rounds = by_tier(60, 120, 660);
    const uint64_t number = seed();
    const Outcome outcome = race("as it is", {}, rounds, number);
    CHECK(outcome.rounds_that_lost == 0);
    CHECK(outcome.counters.submissions > rounds * 100);
}

TEST_CASE("no write is lost when one completion in twenty is dropped on purpose") {
    if (!can_track()) return;
    const uint64_t rounds = by_tier(40, 80, 300);
    const EbpfFaults faults{.drop_completions_percent = 5};
    const Outcome outcome = race("5 % of completions dropped", faults, rounds, seed());
    CHECK(outcome.rounds_that_lost == 0);
    CHECK(outcome.counters.completions < outcome.counters.submissions);
}

// The same run without a half of the protocol has to find the loss, or it proves nothing.
TEST_CASE("with the submission marks left out the same run finds lost writes") {
    if (!can_track()) return;
    const EbpfFaults faults{.leave_out_submissions = true, .drop_completions_percent = 5};
    const Outcome outcome =
        race("submission marks left out, 5 % of completions dropped", faults, 40, seed(), true);
    CHECK(outcome.rounds_that_lost > 0);
}
