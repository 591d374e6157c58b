// SPDX-License-Identifier: Apache-2.0
// NonceRegistry hears of every (key, nonce) pair that this process seals with while it lives, and
// stops the test at the second use of one: the promise nonce_once as an assertion.
// Callers: any thread seals; one registry at a time.
#pragma once

#include <mutex>
#include <set>
#include <utility>

#include "user/base/result.h"
#include "user/seal/file_cipher.h"

namespace herald::test {

class NonceRegistry : public seal::SealObserver {
  public:
    NonceRegistry() { seal::set_seal_observer(this); }
    ~NonceRegistry() override { seal::set_seal_observer(nullptr); }
    NonceRegistry(const NonceRegistry&) = delete;
    NonceRegistry& operator=(const NonceRegistry&) = delete;

    void sealed(const std::array<std::byte, 32>& key_digest, const seal::Nonce& nonce) override {
        const std::lock_guard lock(mutex_);
        const bool is_first = seen_.insert({key_digest, nonce}).second;
        HERALD_ASSERT(is_first && "nonce_once");
        keys_.insert(key_digest);
    }
    size_t pairs() {
        const std::lock_guard lock(mutex_);
        return seen_.size();
    }
    size_t keys() {
        const std::lock_guard lock(mutex_);
        return keys_.size();
    }

  private:
    std::mutex mutex_;  // level 1; guards both sets
    std::set<std::pair<std::array<std::byte, 32>, seal::Nonce>> seen_;
    std::set<std::array<std::byte, 32>> keys_;
};

}  // namespace herald::test
