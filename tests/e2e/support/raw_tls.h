// SPDX-License-Identifier: Apache-2.0
// RawTls: a connection of an ill-behaved client: any source address, any certificate or none, any
// bytes, no HTTP library that would know better.
// Callers: one thread. Owns: the socket. Failure: said by the return values; never a REQUIRE, so
// that a test can say what it expected.
#pragma once

#include <openssl/ssl.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "user/base/file.h"
#include "user/wire/tls.h"

namespace herald::test {

// A TCP connection to 127.0.0.1; from an address of 127.0.0.0/8 when given. Invalid on failure.
Fd connect_from(const std::string& source, uint16_t port);

// True when the other side has closed, or does so within the time; what it sends is dropped.
bool closed_within(int fd, std::chrono::milliseconds most);

class RawTls {
  public:
    // Handshake as far as a client can tell; nothing when it fails. Without `tls` no certificate
    // is shown. The server's is not looked at.
    static std::optional<RawTls> connect(uint16_t port, const std::optional<wire::TlsFiles>& tls,
                                         int version = TLS1_3_VERSION);
    // False when the other side no longer takes it.
    bool write(std::string_view bytes);
    // Something came; a session ticket, perhaps, of which read_head() makes nothing.
    bool has_input() const;
    // What comes until the other side closes, the time is over or a whole answer head is there.
    std::string read_head(std::chrono::milliseconds most);

  private:
    struct Free {
        void operator()(SSL* ssl) const { SSL_free(ssl); }
        void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
    };
    Fd fd_;
    std::unique_ptr<SSL_CTX, Free> context_;
    std::unique_ptr<SSL, Free> ssl_;
};

}  // namespace herald::test
