// SPDX-License-Identifier: Apache-2.0
// Pins: BPF maps, programs and links as files of a bpffs, and the memory of mapped maps.
// Promise: errors name the pin. Callers: any thread, except that mounting is serialised here.
// Owns: descriptors and mappings, never the pins.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <deque>
#include <filesystem>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "user/base/file.h"
#include "user/base/result.h"

namespace herald::tracker {

// Shared memory of one mmapable array map. The kernel counts every mapped page of such a map as
// resident, used or not: a large one is mapped by windows of kWindowBytes, and of those only the
// last few that were opened.
class MappedMap {
  public:
    MappedMap() = default;
    MappedMap(MappedMap&& other) noexcept { *this = std::move(other); }
    MappedMap& operator=(MappedMap&& other) noexcept {
        std::swap(memory_, other.memory_);
        std::swap(bytes_, other.bytes_);
        std::swap(fd_, other.fd_);
        std::swap(windows_max_, other.windows_max_);
        std::swap(is_open_, other.is_open_);
        std::swap(opened_, other.opened_);
        return *this;
    }
    ~MappedMap();

    static constexpr uint64_t kWindowBytes = 65536;

    // `bytes` is what the caller relies on: a map of any other size is refused. Larger than
    // mapped_bytes_max: by windows, that many bytes of them at a time.
    static Result<MappedMap> map(Fd fd, uint64_t bytes, std::string_view name,
                                 uint64_t mapped_bytes_max = UINT64_MAX);
    bool by_windows() const { return windows_max_ > 0; }
    // Makes the window accessible; takes the one away that was opened first, if there are too many.
    void open_window(uint64_t window) {
        if (!is_open_[window]) map_window(window);
    }

    template <class T>
    std::span<T> as() const {
        return {static_cast<T*>(memory_), bytes_ / sizeof(T)};
    }
    int fd() const { return fd_.get(); }

  private:
    void map_window(uint64_t window);
    std::span<std::byte> window_memory(uint64_t window) const;

    void* memory_ = nullptr;
    size_t bytes_ = 0;
    Fd fd_;
    size_t windows_max_ = 0;  // 0: mapped whole
    std::vector<bool> is_open_;
    std::deque<uint64_t> opened_;  // the oldest first
};

struct LinkFacts {
    uint32_t link_id = 0;
    uint32_t program_id = 0;
};
struct ProgramFacts {
    uint64_t skipped_runs = 0;  // the kernel's recursion_misses
    std::vector<uint32_t> map_ids;
};

// Makes `dir` a bpffs unless it is one.
Result<void> ensure_bpffs(const std::filesystem::path& dir);

// Nothing when there is no such pin.
Result<std::optional<Fd>> open_pin(const std::filesystem::path& pin);
Result<void> pin_object(int fd, const std::filesystem::path& pin);
// A mmapable array map with one or more values of value_bytes.
Result<Fd> create_array(const char* name, uint32_t value_bytes, uint64_t values);

Result<LinkFacts> link_facts(int link_fd);
Result<ProgramFacts> program_facts(int program_fd);
Result<Fd> program_by_id(uint32_t id);
Result<uint32_t> map_id(int map_fd);

// Removes the pins in `dir` and the directory; absent is fine.
Result<void> remove_pins(const std::filesystem::path& dir);

}  // namespace herald::tracker
