// SPDX-License-Identifier: Apache-2.0
// Secret: bytes that must not outlive their use: keys, passphrases, PINs.
// Promise: wiped when it dies, is moved from or assigned to; never copied behind the owner's back.
// Owns its memory.
#pragma once

#include <openssl/crypto.h>

#include <memory>
#include <utility>

#include "user/base/bytes.h"

namespace herald::seal {

inline constexpr size_t kKeyBytes = 32;

class Secret {
  public:
    Secret() = default;
    explicit Secret(size_t size) : bytes_(std::make_unique<std::byte[]>(size)), size_(size) {}
    explicit Secret(ByteView from) : Secret(from.size()) {
        std::copy(from.begin(), from.end(), bytes_.get());
    }
    Secret(Secret&& other) noexcept
        : bytes_(std::move(other.bytes_)), size_(std::exchange(other.size_, 0)) {}
    Secret& operator=(Secret&& other) noexcept {
        if (this == &other) return *this;
        wipe();
        bytes_ = std::move(other.bytes_);
        size_ = std::exchange(other.size_, 0);
        return *this;
    }
    Secret(const Secret&) = delete;
    Secret& operator=(const Secret&) = delete;
    ~Secret() { wipe(); }

    ByteView view() const { return {bytes_.get(), size_}; }
    ByteSpan span() { return {bytes_.get(), size_}; }
    size_t size() const { return size_; }
    Secret copy() const { return Secret(view()); }

  private:
    void wipe() {
        if (bytes_) OPENSSL_cleanse(bytes_.get(), size_);
    }
    std::unique_ptr<std::byte[]> bytes_;
    size_t size_ = 0;
};

// Takes as long whatever the bytes are: no comparison of secrets tells where they differ.
inline bool equal_secrets(ByteView a, ByteView b) {
    return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace herald::seal
