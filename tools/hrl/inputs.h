// SPDX-License-Identifier: Apache-2.0
// The files a verb works on, of either format: opened, put in order, verified.
// Promise: what arrange() returns is one disk's history without a gap, fork or repetition, each
// file whole; verify_inputs() has then read all of it. An image layer stands for all before it.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

#include "tools/hrl/verbs.h"
#include "user/hrl/journal.h"

namespace herald::hrl_tool {

// Layers, too: the records of one come in the order of the file. Where a key was given, a file that
// is not sealed is refused, unless that is allowed.
Result<std::unique_ptr<hrl::Journal>> open_journal(const std::filesystem::path& file,
                                                   const Reading& options);

// For verbs that only look: what is plain is shown also where no key was given. Where one was, a
// file that names another is not what was asked about.
inline Reading may_look(Reading options) {
    options.segment.without_key = !options.has_key();
    return options;
}

struct Input {
    std::filesystem::path file;
    hrl::JournalFacts facts;
    std::optional<uint64_t> last_position;  // v3: the file's word; v2: once verified
    // v2 counts from 1 in every file; a chain of them is counted through.
    uint64_t position_shift = 0;
    uint64_t records = 0;   // once verified
    uint64_t disk_end = 0;  // once verified

    uint64_t first() const { return facts.first_position + position_shift; }
    uint64_t last() const { return last_position.value_or(0) + position_shift; }
    bool is_sealed() const { return facts.sealed; }
    bool is_layer() const { return facts.contents != hrl::Contents::segment; }
    bool is_image() const { return facts.contents == hrl::Contents::image_layer; }
};

// What is lost of a v3 file that is written anew, because this program does not know it; nothing
// for most files.
std::optional<std::string> unknown_features(const hrl::JournalFacts& facts);

Result<std::vector<Input>> arrange(const std::vector<std::filesystem::path>& files,
                                   const Reading& options);
// Reads everything; `visit` sees every record, with positions counted through; those of a layer in
// the order of the file. `begin` comes before the records of each.
Result<void> verify_inputs(
    std::vector<Input>& inputs, const Reading& options,
    const std::function<Result<void>(const hrl::Record&)>& visit = nullptr,
    const std::function<void(const Input&, const hrl::Journal&)>& begin = nullptr);
// As verify_inputs(), of inputs that were verified, and all records by position: a file that
// changed since is refused. `visit` returns false to stop. What does not fit into memory is sorted
// in `scratch_dir`.
Result<void> read_inputs(const std::vector<Input>& inputs, const Reading& options,
                         const std::filesystem::path& scratch_dir, const char* doing,
                         const std::function<Result<void>(const Input&)>& begin,
                         const std::function<Result<bool>(const hrl::Record&)>& visit);

}  // namespace herald::hrl_tool
