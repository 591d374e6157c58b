// SPDX-License-Identifier: Apache-2.0
// CPU seconds per GB, both ends together, for PUT of 8 MiB bodies over loopback TLS 1.3, beside
// the same bytes through bare OpenSSL over loopback TCP (blocking, 16 KiB records) and through
// sealing and opening in memory alone. Reports; never fails on figures.
#include <spdlog/spdlog.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/unit/wire/fixture.h"
#include "user/wire/tls_state.h"

using namespace herald;
using namespace herald::wire;
using namespace herald::test;

namespace {

constexpr size_t kBodyBytes = 8u << 20;
using SslPtr = std::unique_ptr<SSL, OpensslFree<SSL_free>>;

double cpu_seconds() {
    rusage use{};
    ::getrusage(RUSAGE_SELF, &use);
    const auto seconds = [](const timeval& t) {
        return double(t.tv_sec) + double(t.tv_usec) * 1e-6;
    };
    return seconds(use.ru_utime) + seconds(use.ru_stime);
}

struct Figure {
    double cpu_s_per_gb = 0;
    double gb_per_s = 0;
};

template <class Work>
Figure measure(size_t bodies, const Work& work) {
    const double cpu = cpu_seconds();
    const auto start = std::chrono::steady_clock::now();
    work(bodies);
    const double wall =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    const double gb = double(bodies) * kBodyBytes / 1e9;
    return {(cpu_seconds() - cpu) / gb, gb / wall};
}

void put_bodies(HttpClient& client, const Bytes& body, size_t bodies) {
    for (size_t i = 0; i < bodies; i++) {
        auto response = client.send({"PUT", "/", {}, body}, 60s);
        if (!response || response->status != 200) {
            fmt::print(stderr, "PUT failed: {}\n",
                       response ? std::to_string(response->status) : response.error().message);
            std::exit(1);
        }
    }
}

// Plain contexts: OpenSSL's defaults but for the certificate and the cipher.
SslPtr plain(const char* who, bool server) {
    const auto files = certificates().files(who);
    std::unique_ptr<SSL_CTX, OpensslFree<SSL_CTX_free>> context(
        SSL_CTX_new(server ? TLS_server_method() : TLS_client_method()));
    SSL_CTX_use_certificate_file(context.get(), files.certificate.c_str(), SSL_FILETYPE_PEM);
    SSL_CTX_use_PrivateKey_file(context.get(), files.key.c_str(), SSL_FILETYPE_PEM);
    SSL_CTX_set_ciphersuites(context.get(), "TLS_AES_128_GCM_SHA256");
    SSL_CTX_set_num_tickets(context.get(), 0);
    return SslPtr(SSL_new(context.get()));
}

void bare_tcp(const Bytes& body, size_t bodies) {
    const Fd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t bytes = sizeof address;
    ::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), bytes);
    ::listen(listener.get(), 1);
    ::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &bytes);
    std::thread receiver([&] {
        const Fd fd(::accept(listener.get(), nullptr, nullptr));
        const SslPtr ssl = plain("server", true);
        SSL_set_fd(ssl.get(), fd.get());
        if (SSL_accept(ssl.get()) != 1) std::exit(1);
        Bytes whole(kBodyBytes);
        for (size_t i = 0; i < bodies; i++)
            for (size_t at = 0; at < kBodyBytes;) {
                size_t got = 0;
                if (SSL_read_ex(ssl.get(), whole.data() + at, kBodyBytes - at, &got) != 1)
                    std::exit(1);
                at += got;
            }
    });
    const Fd fd = tcp_connect(ntohs(address.sin_port));
    const SslPtr ssl = plain("machine", false);
    SSL_set_fd(ssl.get(), fd.get());
    if (SSL_connect(ssl.get()) != 1) std::exit(1);
    for (size_t i = 0; i < bodies; i++) {
        size_t sent = 0;
        if (SSL_write_ex(ssl.get(), body.data(), body.size(), &sent) != 1) std::exit(1);
    }
    receiver.join();
}

void seal_and_open(const Bytes& body, size_t bodies) {
    const SslPtr client = plain("machine", false), server = plain("server", true);
    BIO *a = nullptr, *b = nullptr;
    BIO_new_bio_pair(&a, 64 << 10, &b, 64 << 10);
    SSL_set_bio(client.get(), a, a);
    SSL_set_bio(server.get(), b, b);
    SSL_set_connect_state(client.get());
    SSL_set_accept_state(server.get());
    while (SSL_in_init(client.get()) || SSL_in_init(server.get())) {
        SSL_do_handshake(client.get());
        SSL_do_handshake(server.get());
    }
    Bytes opened(16384);
    for (size_t i = 0; i < bodies; i++)
        for (size_t at = 0; at < body.size(); at += opened.size()) {
            size_t sent = 0, got = 0;
            if (SSL_write_ex(client.get(), body.data() + at, opened.size(), &sent) != 1 ||
                SSL_read_ex(server.get(), opened.data(), opened.size(), &got) != 1)
                std::exit(1);
        }
}

}  // namespace

int main(int argc, char** argv) {
    bool quick = false;
    std::string json_path;
    CLI::App app("CPU seconds per GB of PUT over loopback TLS, beside bare TLS");
    app.add_flag("--quick", quick, "0.5 GB for each figure instead of 4");
    app.add_option("--json", json_path, "write the figures to this file");
    CLI11_PARSE(app, argc, argv);
    spdlog::set_level(spdlog::level::warn);

    const size_t bodies = quick ? 64 : 480;
    Bytes body(kBodyBytes);
    uint64_t x = 88172645463325252ull;
    for (size_t i = 0; i + 8 <= body.size(); i += 8) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        store_le(body.data() + i, x);
    }
    TestServer server;
    server.handler.answer = [](const RequestHead&, Bytes) { return json_response(200, "{}"); };
    HttpClient client = server.client();
    put_bodies(client, body, 4);  // warm: connection, buffers
    // Both kinds in turns, so that a noisy moment of the machine meets both.
    Figure put{}, bare{}, memory{};
    constexpr int kTurns = 4;
    for (int i = 0; i < kTurns; i++) {
        const auto add = [&](Figure& to, const Figure& one) {
            to.cpu_s_per_gb += one.cpu_s_per_gb / kTurns;
            to.gb_per_s += one.gb_per_s / kTurns;
        };
        add(put, measure(bodies / kTurns, [&](size_t n) { put_bodies(client, body, n); }));
        add(bare, measure(bodies / kTurns, [&](size_t n) { bare_tcp(body, n); }));
        add(memory, measure(bodies / kTurns, [&](size_t n) { seal_and_open(body, n); }));
    }
    const auto print = [](const char* what, const Figure& f) {
        fmt::print("{:34} {:6.3f} CPU s/GB  {:6.2f} GB/s\n", what, f.cpu_s_per_gb, f.gb_per_s);
    };
    print("PUT of 8 MiB, client and server", put);
    print("bare OpenSSL over loopback TCP", bare);
    print("sealing and opening in memory", memory);
    fmt::print("ratio to bare {:.2f}\n", put.cpu_s_per_gb / bare.cpu_s_per_gb);
    if (!json_path.empty())
        std::ofstream(json_path) << nlohmann::json{{"put_cpu_s_per_gb", put.cpu_s_per_gb},
                                                   {"bare_cpu_s_per_gb", bare.cpu_s_per_gb},
                                                   {"memory_cpu_s_per_gb", memory.cpu_s_per_gb}}
                                        .dump(2)
                                 << "\n";
    return 0;
}
