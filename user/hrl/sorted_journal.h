// SPDX-License-Identifier: Apache-2.0
// SortedJournal: the records of a layer by position, as they happened, whatever order they lie in.
// Promise: the same records; each proven before the first is handed out. The layer is read once.
// Callers: one thread. Memory: kSortBytes; what is more is sorted in runs, in a file without a name
// in `scratch_dir`, which then needs room for the data of the layer, unpacked and opened.
// Failure: that of the layer, before any record; operator_needed or retry of the scratch file.
#pragma once

#include <filesystem>

#include "user/hrl/journal.h"

namespace herald::hrl {

// Some 60 records of the largest size, and ten thousands of usual ones, in one run.
inline constexpr uint64_t kSortBytes = 64u << 20;

// A journal whose records lie by position comes back as it is.
std::unique_ptr<Journal> sorted_by_position(std::unique_ptr<Journal> journal,
                                            const std::filesystem::path& scratch_dir,
                                            uint64_t memory_max = kSortBytes);

}  // namespace herald::hrl
