// SPDX-License-Identifier: Apache-2.0
// TlsWatch sets up an OpenSSL client context from an operator's files and remembers why a
// handshake failed: cpprestsdk says only "Error in SSL handshake", and in TLS 1.3 a client learns
// that its own certificate was refused after its handshake, as a broken read.
// Callers: any thread. Owns: the last trouble seen; not the context, which must not outlive it.
#pragma once

#include <openssl/ssl.h>

#include <mutex>
#include <string>

#include "user/wire/tls.h"

namespace herald::cli {

class TlsWatch {
  public:
    // TLS 1.3 only; trusts tls.authority and nothing the system trusts.
    Result<void> configure(SSL_CTX* context, const wire::TlsFiles& tls);
    // What the last failed handshake failed on; empty when none did. Clears it.
    std::string take_trouble();

  private:
    static void on_event(const SSL* ssl, int where, int value);
    void note(std::string trouble);

    std::mutex mutex_;  // guards trouble_
    std::string trouble_;
};

}  // namespace herald::cli
