// SPDX-License-Identifier: Apache-2.0
#include "tools/herald/tls_watch.h"

#include <openssl/err.h>
#include <openssl/x509_vfy.h>

namespace herald::cli {

namespace {

int watch_index() {
    static const int index = SSL_CTX_get_ex_new_index(0, nullptr, nullptr, nullptr, nullptr);
    return index;
}

std::string openssl_text() {
    const unsigned long code = ERR_get_error();
    ERR_clear_error();
    if (!code) return "unknown error";
    const char* reason = ERR_reason_error_string(code);
    return reason ? reason : fmt::format("OpenSSL error {:#x}", code);
}

}  // namespace

Result<void> TlsWatch::configure(SSL_CTX* context, const wire::TlsFiles& tls) {
    ERR_clear_error();
    const auto refuse = [](const std::filesystem::path& file) {
        return fail(ErrorKind::operator_needed, "cannot use {}: {}", file.native(), openssl_text());
    };
    if (SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) != 1)
        return fail(ErrorKind::operator_needed, "this OpenSSL cannot do TLS 1.3");
    // A new store: the context comes with the system's authorities in it.
    X509_STORE* store = X509_STORE_new();
    HERALD_ASSERT(store);
    SSL_CTX_set_cert_store(context, store);
    if (SSL_CTX_load_verify_locations(context, tls.authority.c_str(), nullptr) != 1)
        return refuse(tls.authority);
    if (SSL_CTX_use_certificate_chain_file(context, tls.certificate.c_str()) != 1)
        return refuse(tls.certificate);
    if (SSL_CTX_use_PrivateKey_file(context, tls.key.c_str(), SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_check_private_key(context) != 1)
        return refuse(tls.key);
    HERALD_ASSERT(SSL_CTX_set_ex_data(context, watch_index(), this) == 1);
    SSL_CTX_set_info_callback(context, on_event);
    return {};
}

void TlsWatch::on_event(const SSL* ssl, int where, int value) {
    if (!(where & SSL_CB_ALERT)) return;
    // The high byte is the level; a warning (close_notify) is how every connection ends.
    if ((value >> 8) != SSL3_AL_FATAL) return;
    auto* self = static_cast<TlsWatch*>(SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), watch_index()));
    if (where & SSL_CB_READ) {
        self->note(fmt::format("the server refused our certificate or connection ({})",
                               SSL_alert_desc_string_long(value)));
        return;
    }
    const long verdict = SSL_get_verify_result(ssl);
    // cpprestsdk compares the name itself, after the chain: a refusal of its own has no better
    // code.
    if (verdict == X509_V_OK || verdict == X509_V_ERR_UNSPECIFIED ||
        verdict == X509_V_ERR_HOSTNAME_MISMATCH || verdict == X509_V_ERR_IP_ADDRESS_MISMATCH)
        self->note("the server's certificate is not for this host name or address");
    else
        self->note(fmt::format("the server's certificate is not to be trusted: {}",
                               X509_verify_cert_error_string(verdict)));
}

void TlsWatch::note(std::string trouble) {
    const std::lock_guard lock(mutex_);
    trouble_ = std::move(trouble);
}

std::string TlsWatch::take_trouble() {
    const std::lock_guard lock(mutex_);
    return std::exchange(trouble_, {});
}

}  // namespace herald::cli
