// SPDX-License-Identifier: Apache-2.0
// The verbs of the hrl program: one function each, in the file of its name.
// Each prints to standard output what it found, to standard error what went wrong, and returns
// the program's exit status.
#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "user/base/result.h"
#include "user/base/uuid.h"
#include "user/hrl/journal.h"

namespace herald::hrl_tool {

// Exit statuses, as the man page lists them.
inline constexpr int kDone = 0;
inline constexpr int kDamaged = 1;    // a file is not what was written
inline constexpr int kRefused = 2;    // usage, missing file or key, existing target, full output
inline constexpr int kDifferent = 3;  // diff: the journals leave the disk different

// How the files of a verb are read.
struct Reading : hrl::JournalOptions {
    // Take files that are not sealed although a key was given, and chains of which only some are:
    // otherwise anyone could put a plain file in the place of a sealed one.
    bool allow_plain = false;
    bool has_key() const { return segment.keys != nullptr; }
};
struct InfoOptions {
    std::filesystem::path file;
    Reading journal;
    bool blocks = false;
    bool json = false;
};
// What is not set does not filter.
struct RecordsOptions {
    std::filesystem::path file;
    Reading journal;
    uint64_t first_position = 0;
    uint64_t last_position = UINT64_MAX;
    uint64_t since_ns = 0;
    uint64_t before_ns = UINT64_MAX;
    uint64_t range_begin = 0;  // of the disk
    uint64_t range_end = UINT64_MAX;
    bool json = false;
};
struct VerifyOptions {
    std::vector<std::filesystem::path> files;
    Reading journal;
    bool json = false;
};
struct ApplyOptions {
    std::vector<std::filesystem::path> files;
    std::filesystem::path target;
    Reading journal;
    std::optional<uint64_t> until;  // position of the last record to apply
    bool force = false;
};
struct ConvertOptions {
    std::vector<std::filesystem::path> files;
    std::filesystem::path target;
    Reading journal;
    hrl::JournalFormat format = hrl::JournalFormat::v3;
    // What v3 wants to know and v2 does not say.
    Uuid machine;
    Uuid disk;
    std::optional<uint64_t> disk_bytes;
    uint64_t first_position = 1;
    bool dry_run = false;
};
struct RepairOptions {
    std::filesystem::path file;
    std::filesystem::path target;
    Reading journal;
};
struct DiffOptions {
    std::filesystem::path first;
    std::filesystem::path second;
    Reading journal;
    bool json = false;
};
struct StatsOptions {
    std::filesystem::path file;
    Reading journal;
    bool json = false;
};

int info(const InfoOptions& options);
int records(const RecordsOptions& options);
int verify(const VerifyOptions& options);
int apply(const ApplyOptions& options);
int convert(const ConvertOptions& options);
int repair(const RepairOptions& options);
int diff(const DiffOptions& options);
int stats(const StatsOptions& options);

// Prints the error and gives the exit status that belongs to it.
int report(const Error& error);

}  // namespace herald::hrl_tool
