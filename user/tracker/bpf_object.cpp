// SPDX-License-Identifier: Apache-2.0
#include "user/tracker/bpf_object.h"

#include <bpf/bpf.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <mutex>

namespace herald::tracker {
namespace fs = std::filesystem;

MappedMap::~MappedMap() {
    if (memory_) ::munmap(memory_, bytes_);
}

std::span<std::byte> MappedMap::window_memory(uint64_t window) const {
    const uint64_t from = window * kWindowBytes;
    return {static_cast<std::byte*>(memory_) + from, std::min(kWindowBytes, bytes_ - from)};
}

void MappedMap::map_window(uint64_t window) {
    // Over the reservation, so that there is no moment at which another mapping can come between.
    // Without memory for page tables there is no going on; a process that ends here loses nothing.
    if (opened_.size() >= windows_max_) {
        const auto old = window_memory(opened_.front());
        HERALD_ASSERT(::mmap(old.data(), old.size(), PROT_NONE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
                             0) != MAP_FAILED);
        is_open_[opened_.front()] = false;
        opened_.pop_front();
    }
    const auto memory = window_memory(window);
    HERALD_ASSERT(::mmap(memory.data(), memory.size(), PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_FIXED, fd_.get(),
                         off_t(window * kWindowBytes)) != MAP_FAILED);
    is_open_[window] = true;
    opened_.push_back(window);
}

Result<MappedMap> MappedMap::map(Fd fd, uint64_t bytes, std::string_view name,
                                 uint64_t mapped_bytes_max) {
    bpf_map_info info{};
    uint32_t info_bytes = sizeof info;
    if (bpf_obj_get_info_by_fd(fd.get(), &info, &info_bytes) != 0) {
        return fail_errno(errno, fmt::format("look at BPF map {}", name));
    }
    const uint64_t has = uint64_t(info.value_size) * info.max_entries;
    if (info.type != BPF_MAP_TYPE_ARRAY || has != bytes) {
        return fail(ErrorKind::resync, "BPF map {} holds {} bytes where {} are needed", name, has,
                    bytes);
    }
    const bool whole = bytes <= mapped_bytes_max;
    void* memory = whole ? ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0)
                         : ::mmap(nullptr, bytes, PROT_NONE,
                                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return fail_errno(errno, fmt::format("map BPF map {}", name));
    MappedMap mapped;
    if (!whole) {
        mapped.windows_max_ = std::max<size_t>(1, mapped_bytes_max / kWindowBytes);
        mapped.is_open_.resize((bytes + kWindowBytes - 1) / kWindowBytes);
    }
    mapped.memory_ = memory;
    mapped.bytes_ = bytes;
    mapped.fd_ = std::move(fd);
    return mapped;
}

Result<void> ensure_bpffs(const fs::path& dir) {
    // Two threads that both find no bpffs would mount two, one hiding the other's pins.
    static std::mutex mounting;
    std::lock_guard lock(mounting);
    std::error_code error;
    fs::create_directories(dir, error);
    if (error) return fail_errno(error.value(), fmt::format("create {}", dir.native()));
    struct statfs facts {};
    if (::statfs(dir.c_str(), &facts) != 0) {
        return fail_errno(errno, fmt::format("look at {}", dir.native()));
    }
    if (facts.f_type == BPF_FS_MAGIC) return {};
    if (::mount("herald-bpf", dir.c_str(), "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700") !=
        0) {
        return fail_errno(errno, fmt::format("mount a bpffs at {}", dir.native()));
    }
    return {};
}

Result<std::optional<Fd>> open_pin(const fs::path& pin) {
    const int fd = bpf_obj_get(pin.c_str());
    if (fd >= 0) return std::optional<Fd>(Fd(fd));
    if (errno == ENOENT) return std::optional<Fd>();
    return fail_errno(errno, fmt::format("open pin {}", pin.native()));
}

Result<void> pin_object(int fd, const fs::path& pin) {
    if (bpf_obj_pin(fd, pin.c_str()) != 0) {
        return fail_errno(errno, fmt::format("pin {}", pin.native()));
    }
    return {};
}

Result<Fd> create_array(const char* name, uint32_t value_bytes, uint64_t values) {
    LIBBPF_OPTS(bpf_map_create_opts, options, .map_flags = BPF_F_MMAPABLE);
    const int fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, name, sizeof(uint32_t), value_bytes,
                                  uint32_t(values), &options);
    if (fd < 0) return fail_errno(errno, fmt::format("create BPF map {}", name));
    return Fd(fd);
}

Result<LinkFacts> link_facts(int link_fd) {
    bpf_link_info info{};
    uint32_t bytes = sizeof info;
    if (bpf_obj_get_info_by_fd(link_fd, &info, &bytes) != 0) {
        return fail_errno(errno, "look at a BPF link");
    }
    return LinkFacts{info.id, info.prog_id};
}

Result<ProgramFacts> program_facts(int program_fd) {
    ProgramFacts facts;
    facts.map_ids.resize(64);
    bpf_prog_info info{};
    info.nr_map_ids = uint32_t(facts.map_ids.size());
    info.map_ids = reinterpret_cast<uint64_t>(facts.map_ids.data());
    uint32_t bytes = sizeof info;
    if (bpf_obj_get_info_by_fd(program_fd, &info, &bytes) != 0) {
        return fail_errno(errno, "look at a BPF program");
    }
    facts.map_ids.resize(std::min<size_t>(info.nr_map_ids, facts.map_ids.size()));
    facts.skipped_runs = info.recursion_misses;
    return facts;
}

Result<Fd> program_by_id(uint32_t id) {
    const int fd = bpf_prog_get_fd_by_id(id);
    if (fd < 0) return fail_errno(errno, fmt::format("open BPF program {}", id));
    return Fd(fd);
}

Result<uint32_t> map_id(int map_fd) {
    bpf_map_info info{};
    uint32_t bytes = sizeof info;
    if (bpf_obj_get_info_by_fd(map_fd, &info, &bytes) != 0) {
        return fail_errno(errno, "look at a BPF map");
    }
    return info.id;
}

Result<void> remove_pins(const fs::path& dir) {
    std::error_code error;
    fs::remove_all(dir, error);
    if (error) return fail_errno(error.value(), fmt::format("remove {}", dir.native()));
    return {};
}

}  // namespace herald::tracker
