// SPDX-License-Identifier: Apache-2.0
// Gcm: AES-256-GCM under one key, scheduled once, in one direction.
// Callers: file_cipher.cpp, and the test of the standard's answers. One thread.
// Owns the key's schedule, which libcrypto wipes. Failure: our own mistakes assert.
#pragma once

#include <openssl/evp.h>

#include <array>
#include <memory>

#include "user/base/result.h"
#include "user/seal/file_cipher.h"

namespace herald::seal {

inline const unsigned char* octets(ByteView bytes) {
    return reinterpret_cast<const unsigned char*>(bytes.data());
}

struct ContextDeleter {
    void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
};

// One AES-256-GCM key, scheduled once; libcrypto wipes the schedule.
class Gcm {
  public:
    Gcm(ByteView key, bool seals) : context_(EVP_CIPHER_CTX_new()) {
        HERALD_ASSERT(context_ && EVP_CipherInit_ex(context_.get(), EVP_aes_256_gcm(), nullptr,
                                                    octets(key), nullptr, seals ? 1 : 0) == 1);
    }
    void begin(const Nonce& nonce, std::span<const ByteView> associated) {
        HERALD_ASSERT(
            EVP_CipherInit_ex(context_.get(), nullptr, nullptr, nullptr, octets(nonce), -1) == 1);
        for (const ByteView part : associated) update(part, nullptr);
    }
    void update(ByteView from, std::byte* to) {
        if (from.empty()) return;
        int size = 0;
        HERALD_ASSERT(EVP_CipherUpdate(context_.get(), reinterpret_cast<unsigned char*>(to), &size,
                                       octets(from), int(from.size())) == 1 &&
                      size_t(size) == from.size());
    }
    bool finish() {
        unsigned char none[16];
        int size = 0;
        return EVP_CipherFinal_ex(context_.get(), none, &size) == 1;
    }
    AuthTag tag() {
        AuthTag tag;
        HERALD_ASSERT(EVP_CIPHER_CTX_ctrl(context_.get(), EVP_CTRL_AEAD_GET_TAG, int(tag.size()),
                                          tag.data()) == 1);
        return tag;
    }
    void expect(AuthTag tag) {
        HERALD_ASSERT(EVP_CIPHER_CTX_ctrl(context_.get(), EVP_CTRL_AEAD_SET_TAG, int(tag.size()),
                                          tag.data()) == 1);
    }

  private:
    std::unique_ptr<EVP_CIPHER_CTX, ContextDeleter> context_;
};

}  // namespace herald::seal
