// SPDX-License-Identifier: Apache-2.0
// Pins: BPF maps, programs and links as files of a bpffs, and the memory of mapped maps.
// Promise: errors name the pin. Callers: any thread, except that mounting is serialised here.
// Owns: descriptors and mappings, never the pins.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "user/base/file.h"
#include "user/base/result.h"

namespace herald::tracker {

// Shared memory of one mmapable array map.
class MappedMap {
  public:
    MappedMap() = default;
    MappedMap(MappedMap&& other) noexcept { *this = std::move(other); }
    MappedMap& operator=(MappedMap&& other) noexcept {
        std::swap(memory_, other.memory_);
        std::swap(bytes_, other.bytes_);
        std::swap(fd_, other.fd_);
        return *this;
    }
    ~MappedMap();

    // `bytes` is what the caller relies on: a map of any other size is refused.
    static Result<MappedMap> map(Fd fd, uint64_t bytes, std::string_view name);

    template <class T>
    std::span<T> as() const {
        return {static_cast<T*>(memory_), bytes_ / sizeof(T)};
    }
    int fd() const { return fd_.get(); }

  private:
    void* memory_ = nullptr;
    size_t bytes_ = 0;
    Fd fd_;
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
