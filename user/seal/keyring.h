// SPDX-License-Identifier: Apache-2.0
// Where a reader of sealed files gets keys: KeySource is the question, Keyring one that answers
// from memory, open_keyring() fills it from a root key and a directory of machine keys.
// Callers: one thread fills it; any number may ask afterwards. Owns the keys, which are wiped.
// Failure: a missing key is operator_needed and named with its machine.
#pragma once

#include <filesystem>
#include <map>
#include <vector>

#include "user/seal/machine_key.h"

namespace herald::seal {

class KeySource {
  public:
    virtual ~KeySource() = default;
    // Valid as long as the source. operator_needed: there is none, and why.
    virtual Result<const MachineKey*> find(const Uuid& machine, const Uuid& key_id) const = 0;
};

class Keyring : public KeySource {
  public:
    void add(MachineKey key);
    // Remembers, for the message, that this key exists but could not be unwrapped.
    void add_unusable(const Uuid& key_id, std::string why);
    Result<const MachineKey*> find(const Uuid& machine, const Uuid& key_id) const override;
    size_t size() const { return keys_.size(); }

  private:
    std::map<Uuid, MachineKey> keys_;
    std::map<Uuid, std::string> unusable_;
};

// The file itself, or the *.key of a directory, by name.
Result<std::vector<std::filesystem::path>> machine_key_files(const std::filesystem::path& path);

// Options that programs offer as --key, --keys and --secret-file.
struct KeyOptions {
    std::filesystem::path root;         // a root key file
    std::filesystem::path keys;         // a machine key file, or a directory of them (*.key)
    std::filesystem::path secret_file;  // its first line answers for the passphrase or PIN
};
// A key that another root key wraps is left out, and named when it is asked for; a damaged one,
// too: one bad file does not close the others. No readable key at all is an error.
Result<Keyring> open_keyring(const KeyOptions& options, const AskSecret& ask = nullptr);

}  // namespace herald::seal
