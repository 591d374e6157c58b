// SPDX-License-Identifier: Apache-2.0
#include "tests/e2e/support/raw_tls.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/time.h>

namespace herald::test {

namespace {

void set_timeouts(int fd, std::chrono::milliseconds most) {
    timeval time{};
    time.tv_sec = most.count() / 1000;
    time.tv_usec = (most.count() % 1000) * 1000;
    ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
    ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time);
}

}  // namespace

Fd connect_from(const std::string& source, uint16_t port) {
    Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    if (!source.empty()) {
        ::inet_pton(AF_INET, source.c_str(), &address.sin_addr);
        if (::bind(fd.get(), generic, sizeof address) != 0) return Fd();
    }
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(port);
    if (::connect(fd.get(), generic, sizeof address) != 0) return Fd();
    return fd;
}

bool closed_within(int fd, std::chrono::milliseconds most) {
    const auto until = std::chrono::steady_clock::now() + most;
    for (;;) {
        const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
            until - std::chrono::steady_clock::now());
        if (left.count() < 0) return false;
        pollfd event{fd, POLLIN, 0};
        if (::poll(&event, 1, int(left.count()) + 1) <= 0) continue;
        char dropped[4096];
        if (::recv(fd, dropped, sizeof dropped, 0) <= 0) return true;
    }
}

std::optional<RawTls> RawTls::connect(uint16_t port, const std::optional<wire::TlsFiles>& tls,
                                      int version) {
    RawTls raw;
    raw.fd_ = connect_from("", port);
    if (!raw.fd_) return {};
    set_timeouts(raw.fd_.get(), std::chrono::seconds(30));
    // A closed connection is an answer here, not the end of the test.
    ::signal(SIGPIPE, SIG_IGN);
    raw.context_.reset(SSL_CTX_new(TLS_client_method()));
    SSL_CTX* context = raw.context_.get();
    SSL_CTX_set_min_proto_version(context, version);
    SSL_CTX_set_max_proto_version(context, version);
    if (tls && (SSL_CTX_use_certificate_chain_file(context, tls->certificate.c_str()) != 1 ||
                SSL_CTX_use_PrivateKey_file(context, tls->key.c_str(), SSL_FILETYPE_PEM) != 1))
        return {};
    raw.ssl_.reset(SSL_new(context));
    SSL_set_fd(raw.ssl_.get(), raw.fd_.get());
    if (SSL_connect(raw.ssl_.get()) != 1) {
        ERR_clear_error();
        return {};
    }
    return raw;
}

bool RawTls::write(std::string_view bytes) {
    size_t written = 0;
    const bool taken =
        bytes.empty() || SSL_write_ex(ssl_.get(), bytes.data(), bytes.size(), &written) == 1;
    ERR_clear_error();
    return taken;
}

bool RawTls::has_input() const {
    pollfd event{fd_.get(), POLLIN, 0};
    return ::poll(&event, 1, 0) > 0;
}

std::string RawTls::read_head(std::chrono::milliseconds most) {
    set_timeouts(fd_.get(), most);
    std::string text;
    while (text.find("\r\n\r\n") == std::string::npos) {
        char part[4096];
        size_t got = 0;
        if (SSL_read_ex(ssl_.get(), part, sizeof part, &got) != 1) break;
        text.append(part, got);
    }
    ERR_clear_error();
    return text;
}

}  // namespace herald::test
