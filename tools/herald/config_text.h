// SPDX-License-Identifier: Apache-2.0
// The text of the configuration files that enrolment writes, one function for each file. The
// keys are those that the programs read; docs/operating/two_hosts.md shows them in use.
// Callers: any thread; pure functions.
#pragma once

#include "tools/herald/enrolment.h"

namespace herald::cli {

// A TOML basic string with its quotes.
std::string toml_quoted(std::string_view text);

std::string process_server_toml(const Site& site);
std::string replicator_toml(const Site& site, const Uuid& machine, const std::string& name);
std::string herald_toml(const Site& site);
std::string site_toml(const Site& site);
Result<Site> parse_site_toml(const std::filesystem::path& file);

}  // namespace herald::cli
