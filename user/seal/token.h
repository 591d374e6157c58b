// SPDX-License-Identifier: Apache-2.0
// A root key on a PKCS#11 token: it wraps and unwraps there and never leaves it.
// Callers: one thread at a time. Owns a session; logs out and unloads the module at the end.
// Failure: operator_needed names module, token, object or PIN; a locked PIN is never retried.
// Layout: docs/formats/keys.md
#pragma once

#include "user/seal/root_key.h"

namespace herald::seal {

Result<std::unique_ptr<RootKey>> open_token_root(const Uuid& id, const TokenPlace& place,
                                                 const Secret& pin);

}  // namespace herald::seal
