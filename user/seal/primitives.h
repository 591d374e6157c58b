// SPDX-License-Identifier: Apache-2.0
// The standards that sealing stands on, as libcrypto has them.
// Callers: any thread.
// Failure: what can only fail for want of memory or by our own mistake asserts.
#pragma once

#include "user/base/result.h"
#include "user/seal/secret.h"

namespace herald::seal {

// RFC 5869 with SHA-256; `size` bytes of key material.
Secret hkdf_sha256(ByteView key, ByteView salt, ByteView info, size_t size);

struct ScryptCost {
    uint64_t n = 1u << 17;
    uint32_t r = 8;
    uint32_t p = 1;
};
// RFC 7914. operator_needed when the memory it takes (128 n r bytes) is not to be had.
Result<Secret> scrypt(ByteView passphrase, ByteView salt, const ScryptCost& cost, size_t size);

// RFC 3394 with AES-256 and its default initial value; `plain` is a multiple of 8, at least 16.
Bytes wrap_key(ByteView key, ByteView plain);
// corrupt when another key wrapped it or it was changed.
Result<Secret> unwrap_key(ByteView key, ByteView wrapped);

// From the kernel's generator.
Secret random_secret(size_t size);

}  // namespace herald::seal
