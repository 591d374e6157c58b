// SPDX-License-Identifier: Apache-2.0
// What attach() takes up, what it refuses to trust, and what it says about it.
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <thread>

#include "herald/abi/ebpf_tracker.h"
#include "herald/limits.h"
#include "tests/e2e/tracker/support.h"

using namespace herald;
using namespace herald::test;
using namespace herald::tracker;
using Catch::Matchers::Contains;

namespace {

constexpr uint64_t kDiskBytes = 8u << 20;

// A disk, a private bpffs and one id: what a replicator would be configured with.
struct Host {
    Host() : disk(kDiskBytes) {
        options.bpf_dir = bpf.path();
        options.state_dir = bpf.state_dir();
        options.device = disk.path();
        options.disk = Uuid::random();
    }
    std::unique_ptr<EbpfTracker> attach() { return must(EbpfTracker::attach(options)); }
    // Attached, gap dealt with, and gone again.
    void track() { must(attach()->clear_gap()); }
    std::filesystem::path pins() const { return options.bpf_dir / to_string(options.disk); }
    void write(uint64_t block) {
        Fd fd = must(open_file(disk.path(), O_WRONLY | O_DIRECT));
        AlignedBytes bytes = aligned_bytes(4096);
        std::memset(bytes.get(), 0x5a, 4096);
        must(write_exact(fd.get(), block * HERALD_BLOCK_BYTES, {bytes.get(), 4096}, "the disk"));
    }
    LoopDisk disk;
    BpfDir bpf;
    EbpfOptions options;
};

std::string gap_of(Host& host) {
    auto tracker = host.attach();
    CHECK_FALSE(tracker->resumed());
    CHECK(tracker->map().dirty_runs(10).empty());
    CHECK(tracker->continuity().session.is_nil());
    return tracker->gap().value_or("no gap");
}

}  // namespace

TEST_CASE("the first attach has a gap that says the disk was not tracked before") {
    if (!can_track()) return;
    Host host;
    CHECK_THAT(gap_of(host), Contains("not tracked on this machine before"));
}

TEST_CASE("a gap stays until it was dealt with, also across processes") {
    if (!can_track()) return;
    Host host;
    host.attach();
    auto tracker = host.attach();
    CHECK(tracker->resumed());
    CHECK(tracker->gap().has_value());
    must(tracker->clear_gap());
    tracker.reset();
    CHECK_FALSE(host.attach()->gap().has_value());
}

TEST_CASE("writes are marked while no process is attached") {
    if (!can_track()) return;
    Host host;
    host.track();
    host.write(3);
    host.write(77);
    auto tracker = host.attach();
    CHECK(tracker->resumed());
    CHECK(tracker->gap() == std::nullopt);
    must(tracker->drain());
    CHECK(tracker->map().dirty_runs(10) == std::vector<BlockRun>{{3, 1}, {77, 1}});
    CHECK(must(tracker->counters()).submissions == 2);
    CHECK(must(tracker->counters()).completions == 2);
    CHECK(must(tracker->counters()).open_extents == 0);
    CHECK(must(tracker->quiet({})));
}

TEST_CASE("continuity is remembered as long as the map is") {
    if (!can_track()) return;
    Host host;
    Continuity continuity;
    continuity.disk = host.options.disk;
    continuity.session = Uuid::random();
    continuity.next_session = Uuid::random();
    continuity.acked_position = 1234567;
    continuity.synced = true;
    must(host.attach()->set_continuity(continuity));
    const Continuity kept = host.attach()->continuity();
    CHECK(kept.disk == continuity.disk);
    CHECK(kept.session == continuity.session);
    CHECK(kept.next_session == continuity.next_session);
    CHECK(kept.acked_position == continuity.acked_position);
    CHECK(kept.synced);
}

TEST_CASE("a second process is refused while one is attached") {
    if (!can_track()) return;
    Host host;
    auto tracker = host.attach();
    auto second = EbpfTracker::attach(host.options);
    REQUIRE_FALSE(second.has_value());
    CHECK_THAT(second.error().message, Contains("another process"));
    CHECK_FALSE(EbpfTracker::detach(host.options).has_value());
    tracker.reset();
    CHECK(EbpfTracker::detach(host.options).has_value());
}

TEST_CASE("detach stops tracking and leaves nothing") {
    if (!can_track()) return;
    Host host;
    host.track();
    must(EbpfTracker::detach(host.options));
    CHECK_FALSE(std::filesystem::exists(host.pins()));
    must(EbpfTracker::detach(host.options));
    CHECK_THAT(gap_of(host), Contains("not tracked on this machine before"));
}

TEST_CASE("each pin that was removed is a gap") {
    if (!can_track()) return;
    for (const char* pin : {"link_issue", "link_complete", "live", "todo", "in_flight",
                            "open_writes", "counters", "state"}) {
        Host host;
        host.track();
        REQUIRE(std::filesystem::remove(host.pins() / pin));
        CHECK_THAT(gap_of(host), Contains("removed") && Contains(pin));
    }
}

TEST_CASE("an unmounted bpffs is a gap") {
    if (!can_track()) return;
    Host host;
    host.track();
    host.bpf.unmount();
    CHECK_THAT(gap_of(host), Contains("pinned programs and maps were removed"));
}

TEST_CASE("a restart of the machine is a gap") {
    if (!can_track()) return;
    Host host;
    host.track();
    host.bpf.unmount();
    std::ofstream(host.options.state_dir / (to_string(host.options.disk) + ".tracked"))
        << "00000000-0000-0000-0000-000000000000\n";
    CHECK_THAT(gap_of(host), Contains("restarted"));
}

TEST_CASE("a link that belongs to another disk's programs is a gap") {
    if (!can_track()) return;
    Host host, other;
    host.track();
    other.options.bpf_dir = host.options.bpf_dir;
    other.track();
    REQUIRE(std::filesystem::remove(host.pins() / "link_issue"));
    std::filesystem::rename(other.pins() / "link_issue", host.pins() / "link_issue");
    CHECK_THAT(gap_of(host), Contains("do not write the maps"));
}

TEST_CASE("a device that was detached and attached again is a gap") {
    if (!can_track()) return;
    Host host;
    SECTION("while nobody looked") {
        host.track();
        host.disk.detach();
        host.disk.attach_again();
        CHECK_THAT(gap_of(host), Contains("detached and attached again"));
    }
    SECTION("under a running drainer, which neither holds it nor goes on") {
        auto tracker = host.attach();
        must(tracker->clear_gap());
        host.disk.detach();
        host.disk.attach_again();
        const auto drained = tracker->drain();
        REQUIRE_FALSE(drained.has_value());
        CHECK(drained.error().kind == ErrorKind::resync);
        CHECK_THAT(tracker->gap().value_or(""), Contains("detached"));
        tracker.reset();
        CHECK_THAT(gap_of(host), Contains("detached and attached again"));
    }
}

TEST_CASE("a resized disk is a gap") {
    if (!can_track()) return;
    Host host;
    auto tracker = host.attach();
    must(tracker->clear_gap());
    host.disk.resize(2 * kDiskBytes);
    const auto drained = tracker->drain();
    REQUIRE_FALSE(drained.has_value());
    CHECK(drained.error().kind == ErrorKind::resync);
    CHECK_THAT(tracker->gap().value_or(""), Contains("resized"));
    tracker.reset();
    CHECK_THAT(gap_of(host), Contains("resized from 8388608 to 16777216"));
    CHECK(host.attach()->map().blocks() == 256);
}

TEST_CASE("pins of another disk's id are not this disk's") {
    if (!can_track()) return;
    Host host;
    host.track();
    EbpfOptions other = host.options;
    other.disk = Uuid::random();
    std::filesystem::rename(host.pins(), other.bpf_dir / to_string(other.disk));
    host.options.disk = other.disk;
    CHECK_THAT(gap_of(host), Contains("another disk"));
}

namespace {

// As the programs would count it: no loop device has passthrough commands.
void count(const Host& host, herald_ebpf_counter counter) {
    const Fd map(bpf_obj_get((host.pins() / "counters").c_str()));
    REQUIRE(map);
    const uint32_t key = counter;
    std::vector<uint64_t> values(size_t(libbpf_num_possible_cpus()), 0);
    REQUIRE(bpf_map_lookup_elem(map.get(), &key, values.data()) == 0);
    ++values.back();
    REQUIRE(bpf_map_update_elem(map.get(), &key, values.data(), BPF_ANY) == 0);
}

}  // namespace

TEST_CASE("a passthrough command that may have written is a gap, once") {
    if (!can_track()) return;
    Host host;
    host.track();
    auto tracker = host.attach();
    count(host, HERALD_EBPF_PASSTHROUGH);
    must(tracker->drain());
    CHECK_THAT(tracker->gap().value_or("no gap"), Contains("passthrough"));
    must(tracker->clear_gap());
    must(tracker->drain());
    CHECK(tracker->gap() == std::nullopt);
}

TEST_CASE("a loss found while a gap is open is a gap of its own afterwards") {
    if (!can_track()) return;
    Host host;
    auto tracker = host.attach();
    count(host, HERALD_EBPF_PASSTHROUGH);
    must(tracker->drain());
    CHECK_THAT(tracker->gap().value_or("no gap"), Contains("not tracked"));
    must(tracker->clear_gap());
    must(tracker->drain());
    CHECK_THAT(tracker->gap().value_or("no gap"), Contains("passthrough"));
}

TEST_CASE("a full table of open writes alone is no gap: completions cover it") {
    if (!can_track()) return;
    Host host;
    host.track();
    auto tracker = host.attach();
    count(host, HERALD_EBPF_TABLE_FULL);
    must(tracker->drain());
    CHECK(tracker->gap() == std::nullopt);
}

TEST_CASE("several disks are tracked apart from each other") {
    if (!can_track()) return;
    Host hosts[3];
    std::vector<std::unique_ptr<EbpfTracker>> trackers;
    for (Host& host : hosts) {
        host.options.bpf_dir = hosts[0].options.bpf_dir;
        trackers.push_back(host.attach());
    }
    for (uint64_t i = 0; i < 3; ++i) hosts[i].write(10 + i);
    for (uint64_t i = 0; i < 3; ++i) {
        must(trackers[i]->drain());
        CHECK(trackers[i]->map().dirty_runs(10) == std::vector<BlockRun>{{10 + i, 1}});
    }
}

TEST_CASE("what cannot be tracked is refused by name") {
    if (!can_track()) return;
    Host host;
    host.options.device = "/dev/null";
    CHECK_FALSE(EbpfTracker::attach(host.options).has_value());
    if (std::filesystem::exists("/dev/zram0")) {
        host.options.device = "/dev/zram0";
        const auto attached = EbpfTracker::attach(host.options);
        REQUIRE_FALSE(attached.has_value());
        CHECK_THAT(attached.error().message, Contains("/dev/zram0"));
    }
    host.options.device = host.disk.path();
    host.disk.detach();
    const auto attached = EbpfTracker::attach(host.options);
    REQUIRE_FALSE(attached.has_value());
    CHECK_THAT(attached.error().message, Contains("nothing is attached"));
}

TEST_CASE("a drainer killed after any step leaves nothing undone for the next one") {
    if (!can_track()) return;
    const uint64_t number = seed();
    std::mt19937_64 random(number);
    Host host;
    host.track();
    Replica replica(host.disk.path(), host.disk.bytes());

    const char* const steps[] = {"drain", "take", "read", "emit", "end_pass", "acknowledge"};
    const uint64_t cycles = by_tier(30, 60, 236);
    for (uint64_t cycle = 0; cycle < cycles; ++cycle) {
        // Each step by name first, then random instants.
        const bool by_name = cycle < 2 * std::size(steps);
        const std::string_view step = by_name ? steps[cycle % std::size(steps)] : "";
        const uint64_t passes_before = random() % 4;
        const auto instant = std::chrono::microseconds(random() % 30000);

        std::atomic<bool> stop = false;
        const pid_t child = ::fork();  // before any thread of this process
        REQUIRE(child >= 0);
        if (child == 0) {
            // A failed assertion must not unwind into the child's copy of the test runner.
            try {
                auto tracker = EbpfTracker::attach(host.options);
                if (!tracker || !(*tracker)->resumed() || (*tracker)->gap()) ::_exit(3);
                uint64_t seen = 0;
                replica.after = [&](std::string_view at) {
                    if (by_name && at == step && seen++ >= passes_before) ::raise(SIGKILL);
                };
                for (;;) replica.pass(**tracker);
            } catch (...) {
                ::_exit(4);
            }
        }
        std::thread writer(write_burst, host.disk.path(), host.disk.bytes(), number + cycle,
                           std::cref(stop));
        std::this_thread::sleep_for(by_name ? std::chrono::milliseconds(30)
                                            : std::chrono::milliseconds(5));
        if (!by_name) {
            std::this_thread::sleep_for(instant);
            ::kill(child, SIGKILL);
        }
        int status = 0;
        // A drainer that dies by itself needs writes until it does.
        REQUIRE(::waitpid(child, &status, 0) == child);
        stop = true;
        writer.join();
        INFO("cycle " << cycle << " step " << step);
        REQUIRE(WIFSIGNALED(status));

        auto tracker = host.attach();
        REQUIRE(tracker->resumed());
        REQUIRE(tracker->gap() == std::nullopt);
        replica.finish(*tracker);
        REQUIRE(replica.differing_blocks().empty());
    }
}
