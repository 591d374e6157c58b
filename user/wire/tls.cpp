// SPDX-License-Identifier: Apache-2.0
#include "user/wire/tls.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <sys/stat.h>

#include "user/base/file.h"
#include "user/wire/tls_state.h"

namespace herald::wire {
namespace {

constexpr uint64_t kPemBytesMax = 1u << 20;
constexpr int kAuthoritiesMax = 64;
constexpr int kChainDepthMax = 4;
// One read(2) takes several records: 16 KiB ones cost a system call each otherwise. Freed
// whenever a connection has nothing buffered.
constexpr size_t kReadAheadBytes = 64u << 10;

Result<BioPtr> memory_of(const std::filesystem::path& path, Bytes& bytes) {
    auto read = read_file(path, kPemBytesMax);
    if (!read) return pass(read);
    bytes = std::move(*read);
    BioPtr bio(BIO_new_mem_buf(bytes.data(), static_cast<int>(bytes.size())));
    if (!bio) return fail(ErrorKind::retry, "{}: out of memory", path.native());
    return bio;
}

// Private keys are never encrypted here; without this OpenSSL would ask on the terminal.
int no_passphrase(char*, int, int, void*) { return -1; }

// Chain and purpose were checked by OpenSSL; this adds whom the certificate names. It runs
// inside the handshake, so that a stranger gets an alert and never becomes a peer.
int verify_identity(int ok, X509_STORE_CTX* store) {
    if (!ok || X509_STORE_CTX_get_error_depth(store) != 0) return ok;
    const auto* ssl = static_cast<const SSL*>(
        X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx()));
    const auto identity = identity_of(X509_STORE_CTX_get_current_cert(store));
    const bool expect_server = !SSL_is_server(ssl);
    if (identity && (identity->role == Role::server) == expect_server) return 1;
    X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_REJECTED);  // sent as bad_certificate
    return 0;
}

Result<void> trust(SSL_CTX* ssl, const std::filesystem::path& path) {
    Bytes bytes;
    auto bio = memory_of(path, bytes);
    if (!bio) return pass(bio);
    int found = 0;
    while (X509Ptr certificate{PEM_read_bio_X509(bio->get(), nullptr, no_passphrase, nullptr)}) {
        if (++found > kAuthoritiesMax)
            return fail(ErrorKind::operator_needed, "{}: more than {} authorities", path.native(),
                        kAuthoritiesMax);
        if (!X509_STORE_add_cert(SSL_CTX_get_cert_store(ssl), certificate.get()) ||
            !SSL_CTX_add_client_CA(ssl, certificate.get()))
            return fail(ErrorKind::operator_needed, "{}: {}", path.native(), openssl_errors());
    }
    ERR_clear_error();  // the end of the file is an "error" too
    if (!found)
        return fail(ErrorKind::operator_needed, "{}: holds no PEM certificate", path.native());
    return {};
}

}  // namespace

std::string openssl_errors() {
    std::string text;
    while (const unsigned long code = ERR_get_error()) {
        const char* reason = ERR_reason_error_string(code);
        if (!text.empty()) text.insert(0, "; ");
        text.insert(0, reason ? reason : "unknown OpenSSL error");
    }
    return text;
}

Result<X509Ptr> load_certificate(const std::filesystem::path& path) {
    Bytes bytes;
    auto bio = memory_of(path, bytes);
    if (!bio) return pass(bio);
    X509Ptr certificate(PEM_read_bio_X509(bio->get(), nullptr, no_passphrase, nullptr));
    if (!certificate)
        return fail(ErrorKind::operator_needed, "{}: not a PEM certificate: {}", path.native(),
                    openssl_errors());
    return certificate;
}

Result<KeyPtr> load_key(const std::filesystem::path& path) {
    // Mode and bytes are those of one descriptor: the name may change between two looks.
    auto fd = open_file(path, O_RDONLY | O_NOCTTY);
    if (!fd) return pass(fd);
    struct stat info {};
    if (::fstat(fd->get(), &info) != 0) return fail_errno(errno, path.native());
    if (!S_ISREG(info.st_mode))
        return fail(ErrorKind::operator_needed, "{}: not a regular file", path.native());
    if (info.st_mode & 077)
        return fail(ErrorKind::operator_needed,
                    "{}: a private key that others can read (mode {:o}); chmod 600 it, or issue a "
                    "new one",
                    path.native(), info.st_mode & 0777);
    if (static_cast<uint64_t>(info.st_size) > kPemBytesMax)
        return fail(ErrorKind::operator_needed, "{}: too large for a key", path.native());
    Bytes bytes(static_cast<size_t>(info.st_size));
    auto read = read_exact(fd->get(), 0, bytes, path.native());
    if (!read) return pass(read);
    BioPtr bio(BIO_new_mem_buf(bytes.data(), static_cast<int>(bytes.size())));
    KeyPtr key(bio ? PEM_read_bio_PrivateKey(bio.get(), nullptr, no_passphrase, nullptr) : nullptr);
    OPENSSL_cleanse(bytes.data(), bytes.size());
    if (!key)
        return fail(ErrorKind::operator_needed, "{}: not an unencrypted PEM private key: {}",
                    path.native(), openssl_errors());
    return key;
}

TlsContext::TlsContext() : state_(std::make_unique<State>()) {}
TlsContext::~TlsContext() = default;

Result<std::shared_ptr<const TlsContext>> TlsContext::load(const TlsFiles& files, TlsSide side) {
    ERR_clear_error();
    auto certificate = load_certificate(files.certificate);
    if (!certificate) return pass(certificate);
    auto key = load_key(files.key);
    if (!key) return pass(key);
    if (auto identity = identity_of(certificate->get()); !identity)
        return pass(identity, files.certificate.native());

    std::shared_ptr<TlsContext> context(new TlsContext);
    State& state = *context->state_;
    state.side = side;
    state.ssl.reset(
        SSL_CTX_new(side == TlsSide::server ? TLS_server_method() : TLS_client_method()));
    SSL_CTX* ssl = state.ssl.get();
    if (!ssl) return fail(ErrorKind::retry, "TLS: {}", openssl_errors());

    // AES-128-GCM first: the fastest that both sides' processors have instructions for.
    if (!SSL_CTX_set_min_proto_version(ssl, TLS1_3_VERSION) ||
        !SSL_CTX_set_max_proto_version(ssl, TLS1_3_VERSION) ||
        !SSL_CTX_set_ciphersuites(ssl, "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384"))
        return fail(ErrorKind::operator_needed, "TLS 1.3 is not available: {}", openssl_errors());
    // No resumption: every connection proves its certificate anew, and no ticket key is kept.
    SSL_CTX_set_options(ssl, SSL_OP_NO_TICKET | SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_num_tickets(ssl, 0);
    SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                              SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_read_ahead(ssl, 1);
    SSL_CTX_set_default_read_buffer_len(ssl, kReadAheadBytes);
    SSL_CTX_set_verify(ssl, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, verify_identity);
    SSL_CTX_set_verify_depth(ssl, kChainDepthMax);

    if (!SSL_CTX_use_certificate(ssl, certificate->get()))
        return fail(ErrorKind::operator_needed, "{}: {}", files.certificate.native(),
                    openssl_errors());
    if (!SSL_CTX_use_PrivateKey(ssl, key->get()) || !SSL_CTX_check_private_key(ssl))
        return fail(ErrorKind::operator_needed, "{}: does not belong to {}: {}", files.key.native(),
                    files.certificate.native(), openssl_errors());
    if (auto trusted = trust(ssl, files.authority); !trusted) return pass(trusted);
    return std::shared_ptr<const TlsContext>(std::move(context));
}

}  // namespace herald::wire
