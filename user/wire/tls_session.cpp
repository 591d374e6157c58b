// SPDX-License-Identifier: Apache-2.0
#include "user/wire/tls_session.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>

#include "user/wire/tls_state.h"

namespace herald::wire {
namespace {

// Sealed bytes kept before a send(2): the largest piece that loopback and segmentation
// offload take whole.
constexpr size_t kSendBytes = 64u << 10;
// One more record may be sealed when the buffer is just below kSendBytes; beyond this OpenSSL is
// told to wait, so that a peer that asks for answers and reads none holds no more than this.
constexpr size_t kSealedBytesMax = kSendBytes + (32u << 10);

// Alerts by which a peer refuses a certificate (RFC 8446, section 6.2).
bool is_about_certificate(int alert) {
    return (alert >= 42 && alert <= 46) || alert == 48 || alert == 49 || alert == 116;
}

}  // namespace

struct TlsSession::State {
    std::unique_ptr<SSL, OpensslFree<SSL_free>> ssl;
    int fd = -1;
    bool server = false;
    Bytes sealed;     // waiting to be sent
    size_t sent = 0;  // of sealed
};

namespace {

// The write side is a BIO of our own that collects records; the read side is OpenSSL's socket
// BIO, which reads straight into the record buffer.
struct Collector {
    static int write(BIO* bio, const char* data, size_t bytes, size_t* written) {
        auto& sealed = *static_cast<Bytes*>(BIO_get_data(bio));
        BIO_clear_retry_flags(bio);
        if (sealed.size() + bytes > kSealedBytesMax) {
            BIO_set_retry_write(bio);
            return 0;
        }
        const auto* from = reinterpret_cast<const std::byte*>(data);
        sealed.append({from, bytes});
        *written = bytes;
        return 1;
    }
    static long control(BIO*, int command, long, void*) { return command == BIO_CTRL_FLUSH; }

    static BIO_METHOD* method() {
        static BIO_METHOD* const made = [] {
            BIO_METHOD* m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "collector");
            HERALD_ASSERT(m && BIO_meth_set_write_ex(m, write) && BIO_meth_set_ctrl(m, control));
            return m;
        }();
        return made;
    }
};

}  // namespace

TlsSession::~TlsSession() { ERR_clear_error(); }

Result<std::unique_ptr<TlsSession>> TlsSession::make(const TlsContext& context, int fd,
                                                     const std::string& host) {
    ERR_clear_error();
    std::unique_ptr<TlsSession> session(new TlsSession);
    session->state_ = std::make_unique<State>();
    State& state = *session->state_;
    state.fd = fd;
    state.server = context.state().side == TlsSide::server;
    state.ssl.reset(SSL_new(context.state().ssl.get()));
    BIO* reads = BIO_new_socket(fd, BIO_NOCLOSE);
    BIO* writes = BIO_new(Collector::method());
    if (!state.ssl || !reads || !writes) {
        BIO_free(reads);
        BIO_free(writes);
        return fail(ErrorKind::retry, "TLS: {}", openssl_errors());
    }
    BIO_set_data(writes, &state.sealed);
    BIO_set_init(writes, 1);
    SSL_set_bio(state.ssl.get(), reads, writes);
    if (state.server) {
        SSL_set_accept_state(state.ssl.get());
        return session;
    }
    SSL_set_connect_state(state.ssl.get());
    X509_VERIFY_PARAM* parameters = SSL_get0_param(state.ssl.get());
    X509_VERIFY_PARAM_set_hostflags(
        parameters, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
    // An address is compared with the certificate's addresses, a name with its names.
    if (!X509_VERIFY_PARAM_set1_ip_asc(parameters, host.c_str())) {
        ERR_clear_error();
        if (host.empty() || !SSL_set1_host(state.ssl.get(), host.c_str()) ||
            !SSL_set_tlsext_host_name(state.ssl.get(), host.c_str()))
            return fail(ErrorKind::operator_needed, "'{}' is not a host name", host);
    }
    return session;
}

Step TlsSession::handshake() {
    ERR_clear_error();
    const int result = SSL_do_handshake(state_->ssl.get());
    const Step step = outcome(result, "TLS handshake");
    const Step flushed = flush();  // also an alert that says why
    if (step == Step::done || step == Step::want_read)
        return flushed == Step::done ? step : flushed;
    return step;
}

Step TlsSession::read(ByteSpan to, size_t& got) {
    ERR_clear_error();
    got = 0;
    const int result = SSL_read_ex(state_->ssl.get(), to.data(), to.size(), &got);
    const Step step = outcome(result, "reading");
    // Answers that TLS itself owes (a key update, an alert). If they do not fit now, the next
    // write sends them.
    if (!state_->sealed.empty()) (void)flush();
    return step;
}

Step TlsSession::write(ByteView from, size_t& taken) {
    taken = 0;
    while (taken < from.size()) {
        if (state_->sealed.size() >= kSendBytes)
            if (const Step step = flush(); step != Step::done) return step;
        if (state_->sealed.capacity() < kSealedBytesMax && from.size() > 4096)
            state_->sealed.reserve(kSealedBytesMax);
        ERR_clear_error();
        size_t sealed = 0;
        const int result =
            SSL_write_ex(state_->ssl.get(), from.data() + taken, from.size() - taken, &sealed);
        if (const Step step = outcome(result, "writing"); step != Step::done) return step;
        taken += sealed;
    }
    return Step::done;
}

Step TlsSession::flush() {
    State& s = *state_;
    while (s.sent < s.sealed.size()) {
        const ssize_t n = ::send(s.fd, s.sealed.data() + s.sent, s.sealed.size() - s.sent,
                                 MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n >= 0) {
            s.sent += static_cast<size_t>(n);
            continue;
        }
        if (errno == EINTR) continue;
        if (errno == EAGAIN || errno == EWOULDBLOCK) return Step::want_write;
        if (failure_.message.empty()) failure_ = fail_errno(errno, "sending").value();
        failure_.kind = ErrorKind::retry;
        return Step::failed;
    }
    s.sent = 0;
    s.sealed.clear();
    return Step::done;
}

Step TlsSession::close() {
    ERR_clear_error();
    if (!SSL_in_init(state_->ssl.get())) SSL_shutdown(state_->ssl.get());
    ERR_clear_error();
    return flush();
}

Result<Identity> TlsSession::peer() const {
    const X509* certificate = SSL_get0_peer_certificate(state_->ssl.get());
    if (!certificate || SSL_get_verify_result(state_->ssl.get()) != X509_V_OK)
        return fail(ErrorKind::operator_needed, "the peer showed no valid certificate");
    return identity_of(certificate);
}

Step TlsSession::outcome(int result, const char* doing) {
    if (result == 1) return Step::done;
    const int sys = errno;
    switch (SSL_get_error(state_->ssl.get(), result)) {
        case SSL_ERROR_WANT_READ:
            return Step::want_read;
        case SSL_ERROR_WANT_WRITE:
            return flush() == Step::failed ? Step::failed : Step::want_write;
        case SSL_ERROR_ZERO_RETURN:
            return Step::closed;
        case SSL_ERROR_SYSCALL:
            if (sys == 0) return Step::closed;
            failure_ = fail_errno(sys, doing).value();
            failure_.kind = ErrorKind::retry;
            return Step::failed;
        default:
            break;
    }
    if (ERR_GET_REASON(ERR_peek_last_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
        ERR_clear_error();
        return Step::closed;
    }
    explain(doing);
    return Step::failed;
}

void TlsSession::explain(const char* doing) {
    const char* peer = state_->server ? "client" : "server";
    const int reason = ERR_GET_REASON(ERR_peek_error());
    const long verified = SSL_get_verify_result(state_->ssl.get());
    if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED && verified != X509_V_OK) {
        const char* why = verified == X509_V_ERR_CERT_REJECTED
                              ? "its common name is not one this side accepts"
                              : X509_verify_cert_error_string(verified);
        failure_ = Error{ErrorKind::operator_needed,
                         fmt::format("we refused the {}'s certificate: certificate verify "
                                     "failed: {}",
                                     peer, why),
                         0};
    } else if (reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE) {
        failure_ =
            Error{ErrorKind::operator_needed, fmt::format("the {} showed no certificate", peer), 0};
    } else if (reason > SSL_AD_REASON_OFFSET) {
        const int alert = reason - SSL_AD_REASON_OFFSET;
        const char* text = SSL_alert_desc_string_long(alert);
        failure_ = is_about_certificate(alert)
                       ? Error{ErrorKind::operator_needed,
                               fmt::format("the {} refused our certificate: {}", peer, text), 0}
                       : Error{ErrorKind::operator_needed,
                               fmt::format("the {} ended TLS: {}", peer, text), 0};
    } else if (reason == SSL_R_WRONG_VERSION_NUMBER || reason == SSL_R_HTTP_REQUEST ||
               reason == SSL_R_HTTPS_PROXY_REQUEST) {
        failure_ =
            Error{ErrorKind::operator_needed, fmt::format("the {} does not speak TLS", peer), 0};
    } else {
        failure_ = Error{ErrorKind::retry, fmt::format("{}: TLS: {}", doing, openssl_errors()), 0};
    }
    ERR_clear_error();
}

}  // namespace herald::wire
