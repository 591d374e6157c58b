// SPDX-License-Identifier: Apache-2.0
// Config: what herald-replicator reads from its TOML file. Relative paths are relative to the file.
// Promise: an unknown key, a wrong type or a value out of range is an error that names the key.
// Callers: any thread. Failure: operator_needed.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "herald/limits.h"
#include "user/base/io_engine.h"
#include "user/wire/http_client.h"
#include "user/wire/tls.h"

namespace herald::replicator {

struct Config {
    wire::Endpoint server;
    wire::TlsFiles tls;
    Uuid machine;
    std::string machine_name;  // for people; the host's name when not given
    std::filesystem::path control_socket = "/run/herald/replicator.sock";
    std::filesystem::path guardian_socket = "/run/herald/guardian.sock";
    std::filesystem::path state_dir = "/var/lib/herald/replicator";
    std::filesystem::path bpf_dir = "/run/herald/bpf";
    IoEngineKind io_engine = IoEngineKind::automatic;
    uint64_t segment_bytes = HERALD_SEGMENT_BYTES_DEFAULT;
    uint64_t segment_age_ms = HERALD_SEGMENT_AGE_MS_DEFAULT;
    uint64_t pass_interval_ms = 500;
    uint64_t rate_limit_bytes_s = 0;  // read from each disk; 0: none
    uint64_t points_every_s = 0;      // 0: points only when asked for
    std::vector<std::filesystem::path> disks;
};

Result<Config> load_config(const std::filesystem::path& file);
// `name` is for messages, `dir` for relative paths.
Result<Config> parse_config(std::string_view text, const std::string& name,
                            const std::filesystem::path& dir);

}  // namespace herald::replicator
