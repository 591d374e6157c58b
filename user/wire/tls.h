// SPDX-License-Identifier: Apache-2.0
// TlsContext: one side's certificate, key and the authority it trusts; TLS 1.3 only, both sides
// always show a certificate. Identity: who a verified peer is, from its certificate's name.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "user/base/result.h"
#include "user/base/uuid.h"

namespace herald::wire {

struct TlsFiles {
    std::filesystem::path authority;    // PEM: certificates trusted to sign the other side's
    std::filesystem::path certificate;  // PEM: ours
    std::filesystem::path key;          // PEM: ours; readable by its owner only, or refused
};

enum class TlsSide { client, server };

class TlsContext {
  public:
    static Result<std::shared_ptr<const TlsContext>> load(const TlsFiles& files, TlsSide side);
    ~TlsContext();
    struct State;
    const State& state() const { return *state_; }

  private:
    TlsContext();
    std::unique_ptr<State> state_;
};

enum class Role { machine, operator_, server };

// The subject's common name is "machine:UUID", "operator:NAME" or "server:NAME".
struct Identity {
    Role role = Role::operator_;
    std::string name;  // what follows the colon
    Uuid machine;      // nil unless role is machine
};

Result<Identity> parse_identity(std::string_view common_name);
std::string to_string(const Identity& identity);

}  // namespace herald::wire
