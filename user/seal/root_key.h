// SPDX-License-Identifier: Apache-2.0
// RootKey wraps machine keys: 32 bytes in memory (from a file or a passphrase), or on a token.
// Promise: what it wraps only it unwraps; a wrong passphrase, key or token is named as such.
// Callers: one thread at a time. Owns the key, which is wiped.
// Layout: docs/formats/keys.md
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>

#include "user/base/result.h"
#include "user/base/uuid.h"
#include "user/seal/primitives.h"

namespace herald::seal {

class RootKey {
  public:
    virtual ~RootKey() = default;
    const Uuid& id() const { return id_; }
    // AES-256-KW of a multiple of 8 bytes. operator_needed: the token refuses.
    virtual Result<Bytes> wrap(ByteView plain) = 0;
    // corrupt: another key wrapped it, or it was changed.
    virtual Result<Secret> unwrap(ByteView wrapped) = 0;

  protected:
    explicit RootKey(const Uuid& id) : id_(id) {}

  private:
    Uuid id_;
};

// A key on a PKCS#11 token.
struct TokenPlace {
    std::string module;  // path of a shared library
    std::string token;   // label
    std::string object;  // label of an AES-256 secret key
};

enum class RootSource { file, passphrase, token };

// What a root key file says.
struct RootKeyFile {
    Uuid id;
    RootSource source = RootSource::file;
    Secret key;        // file
    ScryptCost cost;   // passphrase
    Secret salt;       // passphrase
    Secret check;      // file, passphrase
    TokenPlace place;  // token
};

Result<RootKeyFile> parse_root_key(ByteView text, std::string name);
Secret format_root_key(const RootKeyFile& file);

// New ones. The file is what to keep; nothing is written here.
RootKeyFile new_root_key();
Result<RootKeyFile> new_passphrase_root(ByteView passphrase, const ScryptCost& cost = {});
RootKeyFile new_token_root(const TokenPlace& place);

// Asked once when a passphrase or a PIN is needed; `what` says which one of which object.
using AskSecret = std::function<Result<Secret>(const std::string& what)>;

Result<std::unique_ptr<RootKey>> open_root_key(const RootKeyFile& file, const std::string& name,
                                               const AskSecret& ask);

// Reads the file; one that holds a key must be nobody else's to read.
Result<std::unique_ptr<RootKey>> open_root_key(const std::filesystem::path& path,
                                               const AskSecret& ask);
// The first line of a file that is nobody else's to read: for AskSecret where nobody types.
Result<Secret> read_secret_file(const std::filesystem::path& path);

}  // namespace herald::seal
