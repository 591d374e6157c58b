// SPDX-License-Identifier: Apache-2.0
#include "user/tracker/ebpf_tracker.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <sys/file.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <map>

#include "herald/limits.h"
#include "user/tracker/bpf_object.h"
#include "user/tracker/ebpf_programs.h"
#include "user/tracker/ebpf_state.h"
#include "user/tracker/open_writes.h"

namespace herald::tracker {
namespace fs = std::filesystem;
namespace {

// Four slots for each request keep probes short, and leave room for the requests of schedulers
// set later. The upper bound is 24 MiB of table.
constexpr uint64_t kSlotsPerRequest = 4;
constexpr uint64_t kSlotsMin = 1024;
constexpr uint64_t kSlotsMax = 1u << 20;

// A write is open from its tracepoint on, and counted by the kernel a few instructions later. An
// entry is stale only if no write was counted for longer than a processor can be away from those.
constexpr auto kForgetAfter = std::chrono::milliseconds(100);

uint64_t blocks_of(const BlockDevice& device) {
    return (device.bytes + HERALD_BLOCK_BYTES - 1) / HERALD_BLOCK_BYTES;
}

Result<std::string> boot_id() {
    auto fd = open_file("/proc/sys/kernel/random/boot_id", O_RDONLY);
    if (!fd) return pass(fd);
    char text[36];
    auto done = read_exact(fd->get(), 0, std::as_writable_bytes(std::span(text)), "boot_id");
    if (!done) return pass(done);
    return std::string(text, sizeof text);
}

// flock works on directories of a bpffs too and ends with the process, however it ends.
Result<Fd> lock_dir(const fs::path& dir, int operation) {
    auto fd = open_file(dir, O_RDONLY | O_DIRECTORY);
    if (!fd) return pass(fd);
    if (::flock(fd->get(), operation) != 0) {
        return fail_errno(errno, fmt::format("lock {}", dir.native()));
    }
    return fd;
}

Result<Fd> lock_disk(const fs::path& dir) {
    auto lock = lock_dir(dir, LOCK_EX | LOCK_NB);
    if (!lock && lock.error().sys == EWOULDBLOCK) {
        return fail(ErrorKind::retry, "another process is attached to the tracker in {}",
                    dir.native());
    }
    return lock;
}

fs::path marker_path(const EbpfOptions& options) {
    return options.state_dir / (to_string(options.disk) + ".tracked");
}

// Why there are no pins, as well as it can be known.
std::string why_no_pins(const EbpfOptions& options, std::string_view boot) {
    if (options.state_dir.empty()) {
        return "no pinned tracker of this disk was found: it was not tracked before, or the "
               "machine was restarted";
    }
    auto text = read_file(marker_path(options), 4096);
    if (!text) return "this disk was not tracked on this machine before";
    if (as_text(*text).substr(0, boot.size()) != boot) {
        return "the machine was restarted since this disk was tracked";
    }
    return fmt::format("the pinned programs and maps were removed ({} was unmounted or emptied)",
                       options.bpf_dir.native());
}

Result<void> write_marker(const EbpfOptions& options, std::string_view boot) {
    if (options.state_dir.empty()) return {};
    std::error_code error;
    fs::create_directories(options.state_dir, error);
    if (error) {
        return fail_errno(error.value(), fmt::format("create {}", options.state_dir.native()));
    }
    return replace_file(marker_path(options), as_bytes(fmt::format("{}\n", boot)));
}

// Why pins that are complete are not those of this disk as it is now; empty when they are.
std::string why_not_valid(const StateDisk& state, const EbpfPrograms& programs,
                          const BlockDevice& device, const Uuid& disk, std::string_view boot) {
    if (state.layout != HERALD_EBPF_LAYOUT) return "the tracker in place was of another version";
    if (std::string_view(state.boot_id, ::strnlen(state.boot_id, sizeof state.boot_id)) != boot) {
        return "the machine was restarted since this disk was tracked";
    }
    if (state.disk != disk.bytes) return "the tracker in place belonged to another disk";
    if (std::memcmp(&state.ids, &programs.ids, sizeof state.ids) != 0) {
        return "the pinned programs were replaced by others";
    }
    if (state.diskseq != device.diskseq || state.dev != device.dev) {
        return fmt::format(
            "the device was detached and attached again (attachment {} was tracked, /dev/{} is "
            "attachment {})",
            state.diskseq, device.name, device.diskseq);
    }
    if (state.bytes != device.bytes) {
        return fmt::format("the disk was resized from {} to {} bytes", state.bytes, device.bytes);
    }
    if (programs.live.as<uint64_t>().size() != (blocks_of(device) + 63) / 64) {
        return "the pinned maps have the size of another disk";
    }
    return {};
}

}  // namespace

struct EbpfTracker::State {
    State(BlockDevice device_in, EbpfPrograms programs_in, Fd lock_in, bool resumed_in)
        : device(std::move(device_in)),
          programs(std::move(programs_in)),
          lock(std::move(lock_in)),
          resumed(resumed_in),
          memory(programs.state.as<StateDisk>()[0]),
          map(programs.live.as<uint64_t>(), programs.todo.as<uint64_t>(),
              programs.in_flight.as<uint64_t>(), blocks_of(device), window_opener()),
          open_writes(programs.open_writes.as<herald_open_write_abi>()),
          losses(memory.disk().lost) {}

    WindowOpener window_opener();
    Result<std::array<uint64_t, HERALD_EBPF_COUNTERS>> read_counters() const;
    Result<std::array<uint64_t, 2>> skipped_runs() const;
    Result<void> check_device();
    Result<void> weigh_losses();
    Result<std::vector<OpenWrites::Entry>> mark_open();
    Result<bool> is_idle(uint64_t part) const;

    BlockDevice device;
    EbpfPrograms programs;
    Fd lock;
    bool resumed;
    EbpfState memory;
    DirtyMap map;
    OpenWrites open_writes;
    LossLedger losses;
    // Open entries of an idle disk or partition, by slot.
    struct Suspect {
        uint64_t word;
        std::chrono::steady_clock::time_point since;
    };
    std::map<size_t, Suspect> suspects;
};

static_assert(MappedMap::kWindowBytes == kWindowWords * sizeof(uint64_t));

WindowOpener EbpfTracker::State::window_opener() {
    if (!programs.live.by_windows()) return {};
    return [this](Bitmap bitmap, uint64_t window) {
        MappedMap& mapped = bitmap == Bitmap::live   ? programs.live
                            : bitmap == Bitmap::todo ? programs.todo
                                                     : programs.in_flight;
        mapped.open_window(window);
    };
}

EbpfTracker::EbpfTracker(std::unique_ptr<State> state) : state_(std::move(state)) {}
EbpfTracker::~EbpfTracker() = default;

Result<std::unique_ptr<EbpfTracker>> EbpfTracker::attach(const EbpfOptions& options) {
    if (auto able = check_ebpf_requirements(); !able) return pass(able);
    auto device = inspect_block_device(options.device);
    if (!device) return pass(device);
    if (auto trackable = check_trackable(*device); !trackable) return pass(trackable);
    auto boot = boot_id();
    if (!boot) return pass(boot);
    if (auto mounted = ensure_bpffs(options.bpf_dir); !mounted) return pass(mounted);
    auto host_lock = lock_dir(options.bpf_dir, LOCK_EX);
    if (!host_lock) return pass(host_lock);

    // No dots: bpffs refuses them in names.
    const fs::path dir = options.bpf_dir / to_string(options.disk);
    const fs::path dir_new = options.bpf_dir / (to_string(options.disk) + "-new");
    if (auto removed = remove_pins(dir_new); !removed) return pass(removed);

    std::string why;
    std::error_code ignored;
    if (fs::exists(dir, ignored)) {
        auto lock = lock_disk(dir);
        if (!lock) return pass(lock);
        auto programs = open_programs(dir, sizeof(StateDisk));
        if (programs) {
            why = why_not_valid(programs->state.as<StateDisk>()[0], *programs, *device,
                                options.disk, *boot);
            if (why.empty()) {
                auto state = std::make_unique<State>(std::move(*device), std::move(*programs),
                                                     std::move(*lock), true);
                state->map.recover();
                return std::unique_ptr<EbpfTracker>(new EbpfTracker(std::move(state)));
            }
        } else if (programs.error().kind == ErrorKind::resync) {
            why = programs.error().message;
        } else {
            return pass(programs);
        }
        // The old programs stay until the new ones run: nothing depends on it, but a failure
        // below then leaves what was there.
    } else {
        why = why_no_pins(options, *boot);
    }

    auto requests = requests_max(*device);
    if (!requests) return pass(requests);
    EbpfShape shape;
    shape.dev = device->dev;
    shape.diskseq = device->diskseq;
    shape.blocks = blocks_of(*device);
    shape.open_slots =
        std::clamp(std::bit_ceil(*requests * kSlotsPerRequest), kSlotsMin, kSlotsMax);
    shape.leave_out_submissions = options.faults.leave_out_submissions;
    shape.leave_out_open_writes = options.faults.leave_out_open_writes;
    shape.drop_completions_percent = options.faults.drop_completions_percent;
    auto programs = load_programs(shape, sizeof(StateDisk));
    if (!programs) return pass(programs);

    StateDisk& memory = programs->state.as<StateDisk>()[0];
    memory.layout = HERALD_EBPF_LAYOUT;
    memory.disk = options.disk.bytes;
    std::memcpy(memory.boot_id, boot->data(), std::min(boot->size(), sizeof memory.boot_id - 1));
    memory.dev = device->dev;
    memory.diskseq = device->diskseq;
    memory.bytes = device->bytes;
    memory.ids = programs->ids;
    EbpfState(memory).set_gap(why);
    Continuity continuity;
    continuity.disk = options.disk;
    EbpfState(memory).set_continuity(continuity);

    if (!fs::create_directory(dir_new, ignored) && ignored) {
        return fail_errno(ignored.value(), fmt::format("create {}", dir_new.native()));
    }
    auto lock = lock_disk(dir_new);
    if (!lock) return pass(lock);
    auto pinned = pin_programs(*programs, dir_new);
    if (pinned) pinned = remove_pins(dir);
    if (pinned && ::rename(dir_new.c_str(), dir.c_str()) != 0) {
        pinned = fail_errno(errno, fmt::format("rename {}", dir_new.native()));
    }
    // Killed before this line, the next attach knows less about why, and still makes a gap.
    if (pinned) pinned = write_marker(options, *boot);
    if (!pinned) {
        (void)remove_pins(dir_new);
        return pass(pinned);
    }
    auto state =
        std::make_unique<State>(std::move(*device), std::move(*programs), std::move(*lock), false);
    return std::unique_ptr<EbpfTracker>(new EbpfTracker(std::move(state)));
}

Result<void> EbpfTracker::detach(const EbpfOptions& options) {
    if (!options.state_dir.empty()) {
        std::error_code ignored;
        fs::remove(marker_path(options), ignored);
    }
    std::error_code ignored;
    const fs::path dir = options.bpf_dir / to_string(options.disk);
    if (!fs::exists(dir, ignored)) return {};
    auto host_lock = lock_dir(options.bpf_dir, LOCK_EX);
    if (!host_lock) return pass(host_lock);
    auto lock = lock_disk(dir);
    if (!lock) return pass(lock);
    return remove_pins(dir);
}

std::optional<std::string> EbpfTracker::gap() const { return state_->memory.gap(); }

Result<void> EbpfTracker::clear_gap() {
    state_->memory.clear_gap();
    return {};
}

DirtyMap& EbpfTracker::map() { return state_->map; }

Result<std::array<uint64_t, HERALD_EBPF_COUNTERS>> EbpfTracker::State::read_counters() const {
    std::array<uint64_t, HERALD_EBPF_COUNTERS> sums{};
    const int cpus = libbpf_num_possible_cpus();
    if (cpus <= 0) return fail_errno(-cpus, "count the processors");
    std::vector<uint64_t> values(size_t(cpus), 0);
    for (uint32_t i = 0; i < HERALD_EBPF_COUNTERS; ++i) {
        if (bpf_map_lookup_elem(programs.counters.get(), &i, values.data()) != 0) {
            return fail_errno(errno, fmt::format("read the tracker's counters of {}", device.name));
        }
        for (const uint64_t value : values) sums[i] += value;
    }
    return sums;
}

Result<std::array<uint64_t, 2>> EbpfTracker::State::skipped_runs() const {
    std::array<uint64_t, 2> skipped{};
    for (size_t i = 0; i < 2; ++i) {
        auto facts = program_facts(programs.programs[i].get());
        if (!facts) return pass(facts);
        skipped[i] = facts->skipped_runs;
    }
    return skipped;
}

Result<void> EbpfTracker::State::check_device() {
    auto now = look_again(device);
    std::string why;
    if (!now) {
        why = fmt::format("the device went away ({})", now.error().message);
    } else if (now->diskseq != device.diskseq) {
        why = fmt::format("the device was detached and attached again (/dev/{}, attachment {})",
                          device.name, now->diskseq);
    } else if (now->bytes != device.bytes) {
        why = fmt::format("the disk was resized from {} to {} bytes", device.bytes, now->bytes);
    } else {
        return {};
    }
    memory.set_gap(why);
    return fail(ErrorKind::resync, "tracker of /dev/{}: {}; attach again", device.name, why);
}

Result<void> EbpfTracker::State::weigh_losses() {
    // Until a gap was dealt with nothing is weighed off: its compare may begin before a loss that
    // is found now, and clear_gap() would wipe that out with it.
    if (memory.gap()) return {};
    StateDisk& weighed = memory.disk();
    auto counted = read_counters();
    if (!counted) return pass(counted);
    const auto passthrough = (*counted)[HERALD_EBPF_PASSTHROUGH];
    if (passthrough != weighed.passthrough) {
        memory.set_gap(
            fmt::format("passthrough commands that may have written passed by ({} of them issued "
                        "or completed); "
                        "where cannot be known",
                        passthrough - weighed.passthrough));
        weighed.passthrough = passthrough;
    }
    const auto table_full = (*counted)[HERALD_EBPF_TABLE_FULL];
    if (table_full != weighed.table_full) {
        weighed.table_full = table_full;
        open_writes.release_closed();
    }
    auto skipped = skipped_runs();
    if (!skipped) return pass(skipped);
    // A write without a slot is remembered by its completion alone, as if its submission was lost.
    const Losses lost{(*skipped)[0] + table_full, (*skipped)[1]};
    if (!losses.any(lost)) return {};
    if (const auto both = losses.both(lost)) {
        memory.set_gap(fmt::format(
            "the kernel skipped the tracker at {} submissions and {} completions (of all disks): "
            "a write may have been missed at both ends",
            both->submissions, both->completions));
        return {};
    }
    auto writing = writes_in_flight(device);
    if (!writing) return pass(writing);
    // Only if nothing was lost while this was found out, or a write that began meanwhile would be
    // weighed by halves.
    auto again = skipped_runs();
    if (!again) return pass(again);
    auto counted_again = read_counters();
    if (!counted_again) return pass(counted_again);
    if (*again != *skipped || (*counted_again)[HERALD_EBPF_TABLE_FULL] != table_full) return {};
    losses.looked(lost, *writing && **writing == 0, std::chrono::steady_clock::now());
    return {};
}

Result<void> EbpfTracker::drain() {
    if (auto same = state_->check_device(); !same) return same;
    if (auto weighed = state_->weigh_losses(); !weighed) return weighed;
    state_->map.absorb_live();
    return {};
}

// Whether no write is in flight at what this one was submitted to. A partition has a count of its
// own; a write to the whole disk is in the disk's alone, among all others.
Result<bool> EbpfTracker::State::is_idle(uint64_t part) const {
    const dev_t dev =
        makedev(part >> HERALD_EBPF_MINOR_BITS, part & ((1u << HERALD_EBPF_MINOR_BITS) - 1));
    if (part != 0 && dev != device.dev) {
        auto writing = writes_in_flight(device, dev);
        if (!writing) return pass(writing);
        if (*writing) return **writing == 0;
    }
    auto writing = writes_in_flight(device);
    if (!writing) return pass(writing);
    return *writing && **writing == 0;
}

// Marks what is open, and forgets what only a completion that nobody saw can have left open.
Result<std::vector<OpenWrites::Entry>> EbpfTracker::State::mark_open() {
    auto entries = open_writes.open();
    if (entries.empty()) {
        suspects.clear();
        return entries;
    }
    for (const OpenWrites::Entry& entry : entries) {
        const uint64_t first = std::min(entry.run.first, map.blocks());
        map.mark({first, std::min(entry.run.count, map.blocks() - first)});
    }
    // After the entries were read: what was open then and is in flight no more has completed.
    std::map<uint64_t, bool> idle;
    for (const OpenWrites::Entry& entry : entries) {
        if (idle.contains(entry.part)) continue;
        auto found = is_idle(entry.part);
        if (!found) return pass(found);
        idle[entry.part] = *found;
    }
    const auto now = std::chrono::steady_clock::now();
    std::map<size_t, Suspect> still;
    std::vector<OpenWrites::Entry> kept;
    for (const OpenWrites::Entry& entry : entries) {
        if (!idle[entry.part]) {
            kept.push_back(entry);
            continue;
        }
        const auto before = suspects.find(entry.slot);
        const bool same = before != suspects.end() && before->second.word == entry.word;
        if (same && now - before->second.since >= kForgetAfter) {
            open_writes.forget(entry);
            continue;
        }
        still[entry.slot] = same ? before->second : Suspect{entry.word, now};
        kept.push_back(entry);
    }
    suspects = std::move(still);
    return kept;
}

Result<void> EbpfTracker::end_pass() {
    // Before a scan may call itself quiescent: what was lost since the drain counts, too.
    if (auto weighed = state_->weigh_losses(); !weighed) return weighed;
    auto marked = state_->mark_open();
    if (!marked) return pass(marked);
    return {};
}

Result<bool> EbpfTracker::quiet(std::span<const Extent> extents) {
    auto open = state_->mark_open();
    if (!open) return pass(open);
    for (const OpenWrites::Entry& entry : *open) {
        if (extents.empty()) return false;
        const uint64_t first = entry.run.first * HERALD_BLOCK_BYTES;
        const uint64_t end = first + entry.run.count * HERALD_BLOCK_BYTES;
        for (const Extent& extent : extents) {
            if (first < extent.offset + extent.length && extent.offset < end) return false;
        }
    }
    if (!extents.empty()) return true;
    // The kernel's count also knows a write whose submission was missed.
    auto writing = writes_in_flight(state_->device);
    if (!writing) return pass(writing);
    return writing->value_or(0) == 0;
}

Continuity EbpfTracker::continuity() const { return state_->memory.continuity(); }

Result<void> EbpfTracker::set_continuity(const Continuity& continuity) {
    state_->memory.set_continuity(continuity);
    return {};
}

Result<TrackerCounters> EbpfTracker::counters() const {
    auto counted = state_->read_counters();
    if (!counted) return pass(counted);
    auto skipped = state_->skipped_runs();
    if (!skipped) return pass(skipped);
    TrackerCounters counters;
    counters.submissions = (*counted)[HERALD_EBPF_SUBMISSIONS];
    counters.completions = (*counted)[HERALD_EBPF_COMPLETIONS];
    counters.missed_events = (*skipped)[0] + (*skipped)[1];
    counters.open_extents = state_->open_writes.count();
    counters.table_full = (*counted)[HERALD_EBPF_TABLE_FULL];
    counters.reissued_open = (*counted)[HERALD_EBPF_REISSUED_OPEN];
    counters.beyond_end = (*counted)[HERALD_EBPF_BEYOND_END];
    counters.foreign = (*counted)[HERALD_EBPF_FOREIGN];
    counters.long_discards = (*counted)[HERALD_EBPF_LONG_DISCARD];
    return counters;
}

const BlockDevice& EbpfTracker::device() const { return state_->device; }
bool EbpfTracker::resumed() const { return state_->resumed; }

}  // namespace herald::tracker
