// SPDX-License-Identifier: Apache-2.0
// DiskBounds: whether the records of journals stay within the disk, told before any is applied.
// The disk's size is what each file's header says and what resizes make of it; records of a layer
// stand in another order than they happened, but its resizes stand before what has a range.
// Callers: one thread. Memory: one size; of layers 16 bytes for each resize, kResizesMax at most.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "user/hrl/journal.h"

namespace herald::hrl_tool {

class DiskBounds {
  public:
    // A layer that has more is refused: 16 MiB, and nobody resizes a disk that often.
    static constexpr size_t kResizesMax = 1u << 20;

    // Records after the one at `until` do not count.
    explicit DiskBounds(std::optional<uint64_t> until = std::nullopt)
        : until_(until.value_or(UINT64_MAX)) {}
    // A file follows, whose first position is this.
    void begin(const hrl::Journal& journal, uint64_t first_position);
    Result<void> add(const hrl::Record& record);

    // How many records leave the disk; nothing is known of a log, which does not say its size.
    uint64_t outside() const { return outside_; }
    // Names the first of them, in one sentence, and its file.
    const std::string& problem() const { return problem_; }
    const std::string& problem_file() const { return problem_file_; }
    // The largest that the disk was.
    uint64_t disk_bytes_max() const { return disk_bytes_max_; }
    // The first byte behind every range.
    uint64_t end() const { return end_; }

  private:
    struct Size {
        uint64_t position;  // of the resize; 0 of the header's
        uint64_t disk_bytes;
    };
    uint64_t disk_bytes_at(uint64_t position) const;

    uint64_t until_;
    bool counts_ = true;       // the open file begins at or before until_
    bool by_position_ = true;  // of the open file
    std::vector<Size> sizes_;  // of the open file, by position; empty: it does not say
    uint64_t outside_ = 0;
    uint64_t disk_bytes_max_ = 0;
    uint64_t end_ = 0;
    std::string file_;  // the open one
    std::string problem_;
    std::string problem_file_;
};

}  // namespace herald::hrl_tool
