// SPDX-License-Identifier: Apache-2.0
// DirtyMap against threads that mark while it drains, and against death at every instruction.
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstring>
#include <iostream>
#include <random>
#include <thread>

#include "tests/catch.hpp"
#include "user/tracker/dirty_map.h"

using namespace herald::tracker;

TEST_CASE("no write is lost between threads that mark and the reader that drains") {
    constexpr uint64_t kBlocks = 150;
    constexpr uint64_t kWrites = 20000;
    std::vector<uint64_t> live(3), todo(3), in_flight(3);
    std::array<std::atomic<uint64_t>, kBlocks> disk{};
    std::array<uint64_t, kBlocks> replica{};
    DirtyMap map(live, todo, in_flight, kBlocks);

    std::atomic<int> writers{2};
    std::vector<std::thread> threads;
    for (int t = 0; t < 2; ++t) {
        threads.emplace_back([&, t] {
            std::minstd_rand random(unsigned(t) + 1);
            for (uint64_t i = 0; i < kWrites; ++i) {
                const uint64_t block = random() % kBlocks;
                disk[block].fetch_add(1);
                std::atomic_ref<uint64_t>(live[block / 64]).fetch_or(uint64_t{1} << (block % 64));
            }
            --writers;
        });
    }
    uint64_t cursor = 0, position = 0;
    for (bool last = false;;) {
        const bool finished = writers.load() == 0;
        if (map.absorb_live() == 0 && last) break;
        last = finished;
        for (const BlockRun& run : map.take(50, 8, cursor)) {
            for (uint64_t b = run.first; b < run.first + run.count; ++b) replica[b] = disk[b];
            map.emitted(run, ++position);
        }
        map.acknowledge(position);
    }
    for (std::thread& thread : threads) thread.join();
    for (uint64_t b = 0; b < kBlocks; ++b) CHECK(replica[b] == disk[b]);
    CHECK(map.dirty_runs(10).empty());
}

namespace {

constexpr uint64_t kBlocks = 130;
constexpr size_t kWords = 3;

// What outlives the process, and beside it which blocks must not be missing from it.
struct Shared {
    std::array<uint64_t, kWords> live, todo, in_flight, must;
};

uint64_t bit(uint64_t block) { return uint64_t{1} << (block % 64); }

// A life of the reader; `must` loses a block only when its newest write is about to be
// acknowledged.
void reader_life(Shared& shared) {
    auto write = [&](uint64_t block) {
        std::atomic_ref<uint64_t>(shared.live[block / 64]).fetch_or(bit(block));
        std::atomic_ref<uint64_t>(shared.must[block / 64]).fetch_or(bit(block));
    };
    auto may_go = [&](uint64_t block) {
        std::atomic_ref<uint64_t>(shared.must[block / 64]).fetch_and(~bit(block));
    };
    DirtyMap map(shared.live, shared.todo, shared.in_flight, kBlocks);
    uint64_t cursor = 0;
    map.recover();
    map.absorb_live();
    const auto first = map.take(4, 2, cursor);
    uint64_t position = 0;
    for (const BlockRun& run : first) map.emitted(run, ++position);
    write(first[0].first);
    map.absorb_live();
    cursor = 0;
    const auto second = map.take(3, 2, cursor);
    map.give_back(second.back());
    // The block written again is being read: only the others of the first take are stored.
    for (uint64_t p = 1; p <= first.size(); ++p) {
        const BlockRun& run = first[p - 1];
        for (uint64_t b = run.first; b < run.first + run.count; ++b) {
            if (b != first[0].first) may_go(b);
        }
    }
    map.acknowledge(position);
    map.mark({100, 3});
    write(129);
    map.absorb_live();
    for (const BlockRun& run : map.take(200, 200, cursor)) map.emitted(run, ++position);
}

}  // namespace

TEST_CASE("a reader killed at any instruction leaves every owed block in one of the maps") {
    auto* shared = static_cast<Shared*>(
        ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    REQUIRE(shared != MAP_FAILED);
    for (uint64_t block : {0, 1, 2, 63, 64, 127, 128}) shared->live[block / 64] |= bit(block);
    shared->todo[0] |= bit(5);
    shared->in_flight[1] |= bit(70);
    for (size_t w = 0; w < kWords; ++w) {
        shared->must[w] = shared->live[w] | shared->todo[w] | shared->in_flight[w];
    }

    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        if (::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) ::_exit(9);
        ::raise(SIGSTOP);
        reader_life(*shared);
        ::_exit(0);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    if (!WIFSTOPPED(status)) {
        WARN("not run: this host does not allow ptrace");
        return;
    }
    uint64_t steps = 0, changes = 0, lost = 0;
    Shared before = *shared;
    while (WIFSTOPPED(status)) {
        REQUIRE(::ptrace(PTRACE_SINGLESTEP, child, nullptr, nullptr) == 0);
        REQUIRE(::waitpid(child, &status, 0) == child);
        ++steps;
        if (std::memcmp(&before, shared, sizeof before) == 0) continue;
        // A write of another processor between "set in todo" and "clear in live".
        if (shared->live[1] != 0 && (shared->live[1] & ~shared->todo[1]) == 0 &&
            (shared->must[1] & bit(90)) == 0) {
            shared->live[1] |= bit(90);
            shared->must[1] |= bit(90);
        }
        before = *shared;
        ++changes;
        // The next life starts from exactly these bytes.
        Shared next = *shared;
        DirtyMap map(next.live, next.todo, next.in_flight, kBlocks);
        map.recover();
        map.absorb_live();
        for (size_t w = 0; w < kWords; ++w) {
            if ((next.todo[w] & next.must[w]) != next.must[w]) ++lost;
        }
    }
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
    CHECK(lost == 0);
    // Each set and each clear was seen on its own: the order of the two was really looked at.
    CHECK(changes >= 25);
    std::cout << steps << " instructions, " << changes << " changes of the maps\n";
    ::munmap(shared, sizeof(Shared));
}
