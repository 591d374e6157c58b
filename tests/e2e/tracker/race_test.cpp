// SPDX-License-Identifier: Apache-2.0
// The race between writes in flight and a drainer in a tight loop: bursts of O_DIRECT writes by
// io_uring, 32 in flight, and a comparison after the last drain. Random rounds on a file system do
// not find a lost write; this does.
#include <atomic>
#include <chrono>
#include <iostream>
#include <thread>

#include "tests/e2e/tracker/comparison.h"
#include "tests/e2e/tracker/support.h"

using namespace herald;
using namespace herald::test;
using tracker::EbpfFaults;
using tracker::EbpfTracker;

namespace {

constexpr uint64_t kDiskBytes = 8u << 20;
struct Outcome {
    uint64_t rounds = 0;
    uint64_t rounds_that_lost = 0;
    uint64_t rounds_with_gap = 0;  // and blocks that differed
    uint64_t passes = 0;
    tracker::TrackerCounters counters;
};

// Rounds until the count, or until one loses data.
Outcome race(const char* name, EbpfFaults faults, uint64_t rounds, uint64_t number,
             bool until_lost = false) {
    ScratchDisk disk(kDiskBytes);
    BpfDir bpf;
    auto tracker = must(EbpfTracker::attach({.bpf_dir = bpf.path(),
                                             .state_dir = {},
                                             .device = disk.path(),
                                             .disk = Uuid::random(),
                                             .faults = faults}));
    must(tracker->clear_gap());
    Replica replica(disk.path(), disk.bytes());
    // A disk that was given holds what the last test left there.
    replica.copy_all();
    Outcome outcome;
    const auto start = std::chrono::steady_clock::now();
    while (outcome.rounds < rounds && !(until_lost && outcome.rounds_that_lost > 0)) {
        std::atomic<bool> stop = false;
        std::thread writer(write_burst, disk.path(), disk.bytes(), number + outcome.rounds,
                           std::cref(stop));
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
        const Comparison last = settle(replica, *tracker).last;
        ++outcome.rounds;
        if (last.differing > 0) {
            // A gap is the tracker's own word that a write may have been missed.
            ++(last.gap ? outcome.rounds_with_gap : outcome.rounds_that_lost);
            std::cout << last.told;
            replica.copy_all();
        }
        // Compared: it is answered, and must not excuse the next round.
        must(tracker->clear_gap());
    }
    outcome.passes = replica.passes();
    outcome.counters = must(tracker->counters());
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    std::cout << fmt::format(
                     "{}: {} of {} rounds lost data, {} had a gap instead; {} writes, {} passes, "
                     "{} events skipped by "
                     "the kernel, {:.1f} s",
                     name, outcome.rounds_that_lost, outcome.rounds, outcome.rounds_with_gap,
                     outcome.counters.submissions, outcome.passes, outcome.counters.missed_events,
                     seconds.count())
              << std::endl;
    return outcome;
}

// With completions dropped on purpose, whether the other half of the protocol is there or not.
uint64_t rounds_dropping() {
    return ScratchDisk::is_given() ? by_tier(20, 40, 150) : by_tier(40, 80, 300);
}

}  // namespace

TEST_CASE("no write is lost between a burst in flight and a drainer in a tight loop") {
    if (!can_track()) return;
    const uint64_t rounds = ScratchDisk::is_given() ? by_tier(15, 30, 300) : by_tier(60, 120, 660);
    const uint64_t number = seed();
    const Outcome outcome = race("as it is", {}, rounds, number);
    CHECK(outcome.rounds_that_lost == 0);
    CHECK(outcome.counters.submissions > rounds * 100);
}

TEST_CASE("no write is lost when one completion in twenty is dropped on purpose") {
    if (!can_track()) return;
    const EbpfFaults faults{.drop_completions_percent = 5};
    const Outcome outcome = race("5 % of completions dropped", faults, rounds_dropping(), seed());
    CHECK(outcome.rounds_that_lost == 0);
    CHECK(outcome.counters.completions < outcome.counters.submissions);
}

// The same run without a half of the protocol has to find the loss, or it proves nothing. Why
// completions are dropped for it: docs/decisions/0004_lost_events_on_purpose.md.
TEST_CASE("with the submission marks left out the same run finds lost writes") {
    if (!can_track()) return;
    const EbpfFaults faults{.leave_out_submissions = true, .drop_completions_percent = 5};
    const Outcome outcome = race("submission marks left out, 5 % of completions dropped", faults,
                                 rounds_dropping(), seed(), true);
    CHECK(outcome.rounds_that_lost > 0);
}

// Not run by default: what each half is worth, for docs/internals/ebpf_tracker.md.
TEST_CASE("how often the weaker protocols lose data", "[.measure]") {
    if (!can_track()) return;
    const uint64_t rounds = by_tier(100, 200, 660);
    const uint64_t number = seed();
    race("completions only", {.leave_out_submissions = true}, rounds, number);
    race("completions only, 5 % dropped",
         {.leave_out_submissions = true, .drop_completions_percent = 5}, 30, number);
    race("no open table, 5 % dropped",
         {.leave_out_open_writes = true, .drop_completions_percent = 5}, rounds, number);
    race("submissions only, no open table",
         {.leave_out_open_writes = true, .drop_completions_percent = 100}, rounds, number);
    race("everything, every completion dropped", {.drop_completions_percent = 100}, 30, number);
}
