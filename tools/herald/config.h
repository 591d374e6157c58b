// SPDX-License-Identifier: Apache-2.0
// The operator's configuration (herald.toml): which server, and with which certificate.
// Relative paths in it are relative to the file.
// Failure: names the file and the key that is missing or wrong.
#pragma once

#include <filesystem>
#include <optional>

#include "user/wire/http_client.h"
#include "user/wire/tls.h"

namespace herald::cli {

struct OperatorConfig {
    wire::Endpoint server;
    wire::TlsFiles tls;
};

// Without a file: ~/.config/herald/herald.toml, then /etc/herald/herald.toml.
Result<OperatorConfig> load_operator_config(const std::optional<std::filesystem::path>& file);

}  // namespace herald::cli
