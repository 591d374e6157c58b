// SPDX-License-Identifier: Apache-2.0
// What a TlsContext holds; only tls.cpp and tls_session.cpp include this. TlsContext::State owns
// the SSL_CTX, which OpenSSL lets any thread make sessions from.
#pragma once

#include <openssl/ssl.h>
#include <openssl/x509.h>

#include "user/wire/tls.h"

namespace herald::wire {

template <auto Free>
struct OpensslFree {
    template <class T>
    void operator()(T* object) const {
        Free(object);
    }
};
using X509Ptr = std::unique_ptr<X509, OpensslFree<X509_free>>;
using KeyPtr = std::unique_ptr<EVP_PKEY, OpensslFree<EVP_PKEY_free>>;
using BioPtr = std::unique_ptr<BIO, OpensslFree<BIO_free>>;

struct TlsContext::State {
    std::unique_ptr<SSL_CTX, OpensslFree<SSL_CTX_free>> ssl;
    TlsSide side = TlsSide::client;
};

// Newest first, one line; empties the thread's queue.
std::string openssl_errors();

// Whom the certificate names: exactly one common name, of the form parse_identity() takes.
Result<Identity> identity_of(const X509* certificate);

// PEM files. The key's file must be closed to group and others.
Result<X509Ptr> load_certificate(const std::filesystem::path& path);
Result<KeyPtr> load_key(const std::filesystem::path& path);

}  // namespace herald::wire
