// SPDX-License-Identifier: Apache-2.0
// The machine key object: a machine's key as it is stored, wrapped by a root key.
// Promise: an object that was changed, or put in another one's place, does not open.
// Callers: any thread. Sans I/O: objects are text.
// Layout: docs/formats/keys.md
#pragma once

#include "user/seal/file_cipher.h"
#include "user/seal/root_key.h"

namespace herald::seal {

inline constexpr size_t kWrappedBytes = 72;

struct WrappedKey {
    Uuid machine;
    Uuid id;    // of the machine key
    Uuid root;  // of the root key that wraps it
    std::array<std::byte, kWrappedBytes> wrapped{};
};

Result<WrappedKey> wrap_machine_key(const MachineKey& key, RootKey& root);
// operator_needed: another root key wraps it, and which one.
Result<MachineKey> unwrap_machine_key(const WrappedKey& wrapped, RootKey& root);
// Rotation: the same machine key under another root key.
Result<WrappedKey> rewrap_machine_key(const WrappedKey& wrapped, RootKey& from, RootKey& to);

std::string format_machine_key(const WrappedKey& wrapped);
Result<WrappedKey> parse_machine_key(ByteView text, std::string name);

}  // namespace herald::seal
