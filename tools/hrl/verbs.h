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

namespace herald::hrl_tool {

// Exit statuses, as the man page lists them.
inline constexpr int kDone = 0;
inline constexpr int kDamaged = 1;  // a file is not what was written
inline constexpr int kRefused = 2;  // usage, permission, missing file, existing target, ...

struct InfoOptions {
    std::filesystem::path file;
    bool blocks = false;
    bool json = false;
};
struct RecordsOptions {
    std::filesystem::path file;
    bool json = false;
};
struct VerifyOptions {
    std::vector<std::filesystem::path> files;
    bool json = false;
};
struct ApplyOptions {
    std::vector<std::filesystem::path> files;
    std::filesystem::path target;
    std::optional<uint64_t> until;  // position of the last record to apply
    bool force = false;
};

int info(const InfoOptions& options);
int records(const RecordsOptions& options);
int verify(const VerifyOptions& options);
int apply(const ApplyOptions& options);

// Prints the error and gives the exit status that belongs to it.
int report(const Error& error);

}  // namespace herald::hrl_tool
