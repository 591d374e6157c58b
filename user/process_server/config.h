// SPDX-License-Identifier: Apache-2.0
// Config of herald-process-server, from a TOML file. Relative paths in it are relative to the
// file's folder. Keys and defaults: packaging/man/herald-process-server.8.
// Failure: operator_needed names the file and the key; an unknown key is an error.
#pragma once

#include <filesystem>

#include "user/process_server/service.h"
#include "user/wire/tls.h"

namespace herald::process_server {

struct Config {
    wire::ServerOptions server;
    wire::TlsFiles tls;
    std::filesystem::path store;
    std::filesystem::path catalog;
    ServiceOptions service;
};

// `folder` is what relative paths are relative to; `name` is for messages.
Result<Config> parse_config(std::string_view text, const std::filesystem::path& folder,
                            const std::string& name);
Result<Config> load_config(const std::filesystem::path& path);

}  // namespace herald::process_server
