// SPDX-License-Identifier: Apache-2.0
// The certificate authority that `herald init` makes: an EC P-256 root, and certificates it signs
// for servers (with subject alternative names), machines and operators.
// Failure: an existing file is never overwritten. Keys are written with mode 0600.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "user/wire/tls.h"

namespace herald::wire {

struct AuthorityFiles {
    std::filesystem::path certificate;
    std::filesystem::path key;
};

Result<void> create_authority(const AuthorityFiles& files, const std::string& name,
                              unsigned valid_days);
// `hosts`: DNS names and IP addresses a server answers on; empty for machines and operators.
Result<void> issue_certificate(const AuthorityFiles& authority, const Identity& subject,
                               const std::vector<std::string>& hosts, unsigned valid_days,
                               const std::filesystem::path& certificate,
                               const std::filesystem::path& key);

}  // namespace herald::wire
