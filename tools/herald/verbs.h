// SPDX-License-Identifier: Apache-2.0
// The verbs of herald, each a function of its options that prints to standard output.
// Promise: on failure nothing is printed there; the error says what failed and what to do.
// Callers: main, one verb for each run.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "tools/herald/enrolment.h"
#include "tools/herald/select.h"

namespace herald::cli {

struct CommonOptions {
    std::optional<std::filesystem::path> config;
    bool json = false;
};

struct RestoreOptions {
    std::string disk;
    PointChoice point;
    std::optional<uint64_t> position;  // instead of a point: behind this record
    bool exact = false;                // the time itself, or nothing
    std::filesystem::path to;
    bool force = false;
    bool sha256 = false;
};

Result<void> run_init(const CommonOptions& common, const InitRequest& request);
Result<void> run_enrol(const CommonOptions& common, const std::filesystem::path& dir,
                       EnrolKind kind, const std::string& name);
Result<void> run_disks(const CommonOptions& common);
Result<void> run_points(const CommonOptions& common, const std::string& disk, bool refused_too);
Result<void> run_status(const CommonOptions& common);
Result<void> run_restore(const CommonOptions& common, const RestoreOptions& options);

}  // namespace herald::cli
