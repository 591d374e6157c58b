// SPDX-License-Identifier: Apache-2.0
// What tracking costs each write: the kernel's own clock around the programs, and the rate of
// 4 KiB O_DIRECT writes with and without them, beside each other in one run.
//   bench_tracker_cost [--quick] [--json FILE]
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <thread>

#define CATCH_CONFIG_RUNNER
#include "tests/e2e/tracker/support.h"

using namespace herald;
using namespace herald::test;
using namespace herald::tracker;

namespace {

constexpr uint64_t kDiskBytes = 64u << 20;

struct ProgramTime {
    uint64_t runs = 0;
    uint64_t ns = 0;
};

// Of the newest program of that name: the one this process loaded.
ProgramTime time_of(std::string_view name) {
    ProgramTime time;
    uint32_t id = 0;
    while (bpf_prog_get_next_id(id, &id) == 0) {
        Fd fd(bpf_prog_get_fd_by_id(id));
        bpf_prog_info info{};
        uint32_t bytes = sizeof info;
        if (!fd || bpf_obj_get_info_by_fd(fd.get(), &info, &bytes) != 0) continue;
        // The kernel keeps 15 characters of a name.
        if (name.substr(0, 15) == info.name) time = {info.run_cnt, info.run_time_ns};
    }
    return time;
}

struct Options {
    bool quick = false;
    std::string json;
};
Options options;

double writes_per_second(const LoopDisk& disk, std::chrono::milliseconds duration) {
    std::atomic<bool> stop = false;
    const auto written = [&] {
        std::ifstream stat("/sys/class/block/" + disk.path().filename().native() + "/stat");
        uint64_t field = 0;
        for (int i = 0; i < 5; ++i) stat >> field;
        return field;
    };
    const uint64_t first = written();
    const auto start = std::chrono::steady_clock::now();
    std::thread writer(write_burst, disk.path(), disk.bytes(), 1, std::cref(stop));
    std::this_thread::sleep_for(duration);
    stop = true;
    writer.join();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    return double(written() - first) / seconds.count();
}

}  // namespace

TEST_CASE("what tracking costs each write") {
    if (!can_track()) return;
    const std::chrono::milliseconds duration(options.quick ? 300 : 1500);
    const int rounds = options.quick ? 3 : 7;

    LoopDisk disk(kDiskBytes), other(kDiskBytes);
    BpfDir bpf;
    const auto attach = [&](const LoopDisk& to) {
        return EbpfTracker::attach({.bpf_dir = bpf.path(),
                                    .state_dir = {},
                                    .device = to.path(),
                                    .disk = Uuid::from_name(Uuid{}, to.path().native()),
                                    .faults = {}});
    };
    const auto detach = [&](const LoopDisk& from) {
        return EbpfTracker::detach({.bpf_dir = bpf.path(),
                                    .state_dir = {},
                                    .device = from.path(),
                                    .disk = Uuid::from_name(Uuid{}, from.path().native()),
                                    .faults = {}});
    };
    // Alternating, so that what else the machine does falls on both alike.
    std::vector<double> plain, tracked;
    for (int i = 0; i < rounds; ++i) {
        plain.push_back(writes_per_second(disk, duration));
        {
            auto tracker = must(attach(disk));
            tracked.push_back(writes_per_second(disk, duration));
        }
        must(detach(disk));
    }
    std::sort(plain.begin(), plain.end());
    std::sort(tracked.begin(), tracked.end());

    auto tracker = must(attach(disk));
    const Fd stats(bpf_enable_stats(BPF_STATS_RUN_TIME));
    const auto per_run = [&](const LoopDisk& to, std::string_view program) {
        const ProgramTime before = time_of(program);
        writes_per_second(to, duration);
        const ProgramTime after = time_of(program);
        return double(after.ns - before.ns) /
               double(std::max<uint64_t>(1, after.runs - before.runs));
    };
    const double issue_ns = per_run(disk, "herald_issue");
    const double complete_ns = per_run(disk, "herald_complete");
    const double untracked_ns = per_run(other, "herald_issue");

    const double plain_median = plain[plain.size() / 2];
    const double tracked_median = tracked[tracked.size() / 2];
    std::cout << fmt::format(
        "issue      {:7.0f} ns each\ncomplete   {:7.0f} ns each\nother disk {:7.0f} ns each "
        "event\n4 KiB writes, 32 in flight, loop over memory, median of {}:\n  not tracked "
        "{:9.0f} a second\n  tracked     {:9.0f} a second ({:+.1f} %)\n",
        issue_ns, complete_ns, untracked_ns, rounds, plain_median, tracked_median,
        (tracked_median / plain_median - 1) * 100);
    if (!options.json.empty()) {
        std::ofstream(options.json) << nlohmann::json{{"name", "tracker_cost"},
                                                      {"issue_ns", issue_ns},
                                                      {"complete_ns", complete_ns},
                                                      {"other_disk_ns", untracked_ns},
                                                      {"writes_per_second", plain_median},
                                                      {"tracked_writes_per_second", tracked_median}}
                                           .dump(2)
                                    << "\n";
    }
}

// Catch2 runs the one case, for what it checks on the way; the arguments are a benchmark's.
int main(int argc, char** argv) {
    for (int i = 1; i < argc; ++i) {
        const std::string_view argument = argv[i];
        if (argument == "--quick") {
            options.quick = true;
        } else if (argument == "--json" && i + 1 < argc) {
            options.json = argv[++i];
        } else {
            std::cerr << "usage: bench_tracker_cost [--quick] [--json FILE]\n";
            return 2;
        }
    }
    return Catch::Session().run(1, argv);
}
