// SPDX-License-Identifier: Apache-2.0
#include "user/tracker/ebpf_programs.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/types.h>
#include <sys/sysmacros.h>
#include <tracker.skel.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <memory>
#include <mutex>

#include "herald/abi/ebpf_tracker.h"
#include "herald/limits.h"

namespace herald::tracker {
namespace fs = std::filesystem;
namespace {

constexpr const char* kLinkPins[] = {"link_issue", "link_complete"};
constexpr const char* kLivePin = "live";
constexpr const char* kTodoPin = "todo";
constexpr const char* kInFlightPin = "in_flight";
constexpr const char* kOpenWritesPin = "open_writes";
constexpr const char* kCountersPin = "counters";
constexpr const char* kStatePin = "state";

// libbpf explains failures through a global callback only.
std::mutex libbpf_mutex;
std::string libbpf_said;

int keep_what_libbpf_says(enum libbpf_print_level level, const char* format, va_list arguments) {
    constexpr size_t kKeptBytesMax = 600;
    if (level != LIBBPF_WARN || libbpf_said.size() > kKeptBytesMax) return 0;
    char line[256];
    ::vsnprintf(line, sizeof line, format, arguments);
    libbpf_said += line;
    return 0;
}

struct DestroySkeleton {
    void operator()(herald_tracker* skeleton) const { herald_tracker__destroy(skeleton); }
};

Result<Fd> duplicate(int fd, const char* what) {
    const int copy = ::fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (copy < 0) return fail_errno(errno, fmt::format("duplicate {}", what));
    return Fd(copy);
}

Result<MappedMap> map_copy(int fd, uint64_t bytes, const char* name,
                           uint64_t mapped_bytes_max = UINT64_MAX) {
    auto copy = duplicate(fd, name);
    if (!copy) return pass(copy);
    return MappedMap::map(std::move(*copy), bytes, name, mapped_bytes_max);
}

uint32_t kernel_dev(uint64_t dev) { return (major(dev) << HERALD_EBPF_MINOR_BITS) | minor(dev); }

Result<void> note_ids(EbpfPrograms& programs) {
    for (size_t i = 0; i < 2; ++i) {
        auto facts = link_facts(programs.links[i].get());
        if (!facts) return pass(facts);
        programs.ids.links[i] = facts->link_id;
        programs.ids.programs[i] = facts->program_id;
        auto program = program_by_id(facts->program_id);
        if (!program) return pass(program);
        programs.programs[i] = std::move(*program);
    }
    auto live = map_id(programs.live.fd());
    if (!live) return pass(live);
    programs.ids.live_map = *live;
    auto open_writes = map_id(programs.open_writes.fd());
    if (!open_writes) return pass(open_writes);
    programs.ids.open_writes_map = *open_writes;
    return {};
}

}  // namespace

Result<EbpfPrograms> load_programs(const EbpfShape& shape, uint64_t state_bytes) {
    std::lock_guard lock(libbpf_mutex);
    libbpf_said.clear();
    libbpf_set_print(keep_what_libbpf_says);
    const auto explain = [](int error, const char* doing) {
        std::string said = libbpf_said;
        std::replace(said.begin(), said.end(), '\n', ' ');
        return fail_errno(error, fmt::format("{} the BPF programs ({})", doing, said));
    };

    std::unique_ptr<herald_tracker, DestroySkeleton> skeleton(herald_tracker__open());
    if (!skeleton) return explain(errno, "open");
    skeleton->rodata->disk_dev = kernel_dev(shape.dev);
    skeleton->rodata->disk_seq = shape.diskseq;
    skeleton->rodata->disk_blocks = shape.blocks;
    skeleton->rodata->open_slots = uint32_t(shape.open_slots);
    skeleton->rodata->fault_no_submission = shape.leave_out_submissions;
    skeleton->rodata->fault_no_open = shape.leave_out_open_writes;
    skeleton->rodata->fault_drop_completions_percent = shape.drop_completions_percent;
    const uint64_t words = (shape.blocks + 63) / 64;
    bpf_map__set_max_entries(skeleton->maps.live, uint32_t(words));
    bpf_map__set_max_entries(skeleton->maps.open_writes, uint32_t(shape.open_slots));
    if (const int error = herald_tracker__load(skeleton.get())) return explain(-error, "load");

    EbpfPrograms programs;
    auto live = map_copy(bpf_map__fd(skeleton->maps.live), words * 8, kLivePin,
                         HERALD_BITMAP_MAPPED_BYTES_MAX);
    if (!live) return pass(live);
    programs.live = std::move(*live);
    auto open_writes = map_copy(bpf_map__fd(skeleton->maps.open_writes),
                                shape.open_slots * sizeof(herald_open_write_abi), kOpenWritesPin);
    if (!open_writes) return pass(open_writes);
    programs.open_writes = std::move(*open_writes);
    auto counters = duplicate(bpf_map__fd(skeleton->maps.counters), kCountersPin);
    if (!counters) return pass(counters);
    programs.counters = std::move(*counters);

    const auto make = [&](const char* name, uint64_t value_bytes, uint64_t values,
                          MappedMap& to) -> Result<void> {
        auto fd = create_array(name, uint32_t(value_bytes), values);
        if (!fd) return pass(fd);
        auto mapped = MappedMap::map(std::move(*fd), value_bytes * values, name,
                                     HERALD_BITMAP_MAPPED_BYTES_MAX);
        if (!mapped) return pass(mapped);
        to = std::move(*mapped);
        return {};
    };
    if (auto made = make(kTodoPin, 8, words, programs.todo); !made) return pass(made);
    if (auto made = make(kInFlightPin, 8, words, programs.in_flight); !made) return pass(made);
    if (auto made = make(kStatePin, state_bytes, 1, programs.state); !made) return pass(made);

    if (const int error = herald_tracker__attach(skeleton.get())) return explain(-error, "attach");
    // Copies, because the skeleton closes its own; a link lives as long as a descriptor or pin.
    bpf_link* const links[] = {skeleton->links.herald_issue, skeleton->links.herald_complete};
    for (size_t i = 0; i < 2; ++i) {
        auto link = duplicate(bpf_link__fd(links[i]), kLinkPins[i]);
        if (!link) return pass(link);
        programs.links[i] = std::move(*link);
    }
    if (auto noted = note_ids(programs); !noted) return pass(noted);
    return programs;
}

Result<void> pin_programs(const EbpfPrograms& programs, const fs::path& dir) {
    const std::pair<int, const char*> pins[] = {
        {programs.live.fd(), kLivePin},          {programs.todo.fd(), kTodoPin},
        {programs.in_flight.fd(), kInFlightPin}, {programs.open_writes.fd(), kOpenWritesPin},
        {programs.state.fd(), kStatePin},        {programs.counters.get(), kCountersPin},
        {programs.links[0].get(), kLinkPins[0]}, {programs.links[1].get(), kLinkPins[1]},
    };
    for (const auto& [fd, name] : pins) {
        if (auto pinned = pin_object(fd, dir / name); !pinned) return pinned;
    }
    return {};
}

Result<EbpfPrograms> open_programs(const fs::path& dir, uint64_t state_bytes) {
    EbpfPrograms programs;
    const auto open = [&](const char* name) -> Result<Fd> {
        auto fd = open_pin(dir / name);
        if (!fd) return pass(fd);
        if (!*fd) {
            return fail(ErrorKind::resync, "pinned programs or maps were removed ({} is missing)",
                        (dir / name).native());
        }
        return std::move(**fd);
    };
    const auto open_map = [&](const char* name, uint64_t bytes, MappedMap& to,
                              uint64_t mapped_bytes_max = UINT64_MAX) -> Result<void> {
        auto fd = open(name);
        if (!fd) return pass(fd);
        if (bytes == 0) {
            bpf_map_info info{};
            uint32_t info_bytes = sizeof info;
            if (bpf_obj_get_info_by_fd(fd->get(), &info, &info_bytes) != 0) {
                return fail_errno(errno, fmt::format("look at BPF map {}", name));
            }
            bytes = uint64_t(info.value_size) * info.max_entries;
        }
        auto mapped = MappedMap::map(std::move(*fd), bytes, name, mapped_bytes_max);
        if (!mapped) return pass(mapped);
        to = std::move(*mapped);
        return {};
    };
    const auto open_bitmap = [&](const char* name, uint64_t bytes, MappedMap& to) {
        return open_map(name, bytes, to, HERALD_BITMAP_MAPPED_BYTES_MAX);
    };
    if (auto opened = open_map(kStatePin, state_bytes, programs.state); !opened)
        return pass(opened);
    if (auto opened = open_bitmap(kLivePin, 0, programs.live); !opened) return pass(opened);
    const uint64_t bytes = programs.live.as<uint64_t>().size_bytes();
    if (auto opened = open_bitmap(kTodoPin, bytes, programs.todo); !opened) return pass(opened);
    if (auto opened = open_bitmap(kInFlightPin, bytes, programs.in_flight); !opened) {
        return pass(opened);
    }
    if (auto opened = open_map(kOpenWritesPin, 0, programs.open_writes); !opened) {
        return pass(opened);
    }
    auto counters = open(kCountersPin);
    if (!counters) return pass(counters);
    programs.counters = std::move(*counters);
    for (size_t i = 0; i < 2; ++i) {
        auto link = open(kLinkPins[i]);
        if (!link) return pass(link);
        programs.links[i] = std::move(*link);
    }
    if (auto noted = note_ids(programs); !noted) return pass(noted);
    // Pins that were copied together from different times would not mark what is read.
    for (const Fd& program : programs.programs) {
        auto facts = program_facts(program.get());
        if (!facts) return pass(facts);
        for (const uint32_t id : {programs.ids.live_map, programs.ids.open_writes_map}) {
            if (std::find(facts->map_ids.begin(), facts->map_ids.end(), id) ==
                facts->map_ids.end()) {
                return fail(ErrorKind::resync,
                            "the pinned programs in {} do not write the maps pinned beside them",
                            dir.native());
            }
        }
    }
    return programs;
}

}  // namespace herald::tracker
