// SPDX-License-Identifier: Apache-2.0
// What the wire tests share: certificates made once, a server on a free port of 127.0.0.1 in a
// thread of its own, and a client that can misbehave (RawClient).
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <thread>

#include "tests/temp_dir.h"
#include "user/wire/authority.h"
#include "user/wire/http_client.h"
#include "user/wire/http_server.h"
#include "user/wire/messages.h"
#include "user/wire/tls_session.h"

namespace herald::test {

using namespace std::chrono_literals;

// One authority, a server, a machine and an operator.
struct Certificates {
    Certificates() {
        const wire::AuthorityFiles root{dir.path() / "ca.pem", dir.path() / "ca.key"};
        must(wire::create_authority(root, "test authority", 30));
        const auto issue = [&](const char* stem, const std::string& name,
                               const std::vector<std::string>& hosts) {
            must(wire::issue_certificate(root, *wire::parse_identity(name), hosts, 10,
                                         dir.path() / (std::string(stem) + ".pem"),
                                         dir.path() / (std::string(stem) + ".key")));
        };
        issue("server", "server:test", {"127.0.0.1", "localhost"});
        issue("machine", "machine:" + to_string(machine), {});
        issue("operator", "operator:anna", {});
    }
    wire::TlsFiles files(const std::string& stem) const {
        return {dir.path() / "ca.pem", dir.path() / (stem + ".pem"), dir.path() / (stem + ".key")};
    }
    std::shared_ptr<const wire::TlsContext> context(const std::string& stem) const {
        auto loaded = wire::TlsContext::load(
            files(stem), stem == "server" ? wire::TlsSide::server : wire::TlsSide::client);
        must(loaded);
        return *loaded;
    }
    template <class R>
    static void must(const R& result) {
        if (!result) throw std::runtime_error(result.error().message);
    }

    TempDir dir;
    const Uuid machine = Uuid::random();
};

inline const Certificates& certificates() {
    static const Certificates made;
    return made;
}

// A body is taken up to put_bytes_max, but none with GET; the rest is up to `answer`.
class TestHandler : public wire::HttpHandler {
  public:
    tl::expected<size_t, wire::ServerResponse> admit(const wire::RequestHead& head) override {
        admitted++;
        if (head.path == "/forbidden")
            return tl::unexpected(wire::error_response(403, wire::kErrorForbidden, "not yours"));
        return head.method == "GET" ? 0 : put_bytes_max;
    }
    wire::ServerResponse handle(const wire::RequestHead& head, Bytes body) override {
        handled++;
        if (answer) return answer(head, std::move(body));
        wire::ServerResponse response;
        response.body = std::move(body);
        response.headers["peer"] = to_string(head.peer);
        return response;
    }

    size_t put_bytes_max = 16u << 20;
    std::function<wire::ServerResponse(const wire::RequestHead&, Bytes)> answer;
    std::atomic<int> admitted{0};
    std::atomic<int> handled{0};
};

class TestServer {
  public:
    explicit TestServer(wire::ServerOptions options = {}) {
        options.address = "127.0.0.1";
        options.port = 0;
        auto listening =
            wire::HttpServer::listen(options, certificates().context("server"), handler);
        Certificates::must(listening);
        server = std::move(*listening);
        thread_ = std::thread([this] { server->run(); });
    }
    ~TestServer() { stop(); }
    void stop() {
        server->stop();
        if (thread_.joinable()) thread_.join();
    }
    wire::HttpClient client(const std::string& who = "machine") {
        return wire::HttpClient({"127.0.0.1", server->port()}, certificates().context(who));
    }

    TestHandler handler;
    std::unique_ptr<wire::HttpServer> server;

  private:
    std::thread thread_;
};

inline Fd tcp_connect(uint16_t port, const char* from = "127.0.0.1") {
    Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    ::inet_pton(AF_INET, from, &address.sin_addr);
    if (::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address)) return Fd{};
    ::inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    address.sin_port = htons(port);
    if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address)) return Fd{};
    return fd;
}

// Writes what no honest client would.
class RawClient {
  public:
    explicit RawClient(uint16_t port, const char* who = "machine", const char* from = "127.0.0.1")
        : context_(certificates().context(who)), fd_(tcp_connect(port, from)) {
        if (!fd_) return;
        ::fcntl(fd_.get(), F_SETFL, O_NONBLOCK);
        auto session = wire::TlsSession::make(*context_, fd_.get(), "127.0.0.1");
        Certificates::must(session);
        tls_ = std::move(*session);
        step([&] { return tls_->handshake(); });
    }
    // False: the server no longer listens to this connection.
    bool write(std::string_view text, std::chrono::milliseconds patience = 10s) {
        ByteView bytes = as_bytes(text);
        return step(
                   [&] {
                       size_t taken = 0;
                       auto result = tls_->write(bytes, taken);
                       bytes = bytes.subspan(taken);
                       return result == wire::Step::done ? tls_->flush() : result;
                   },
                   patience) == wire::Step::done;
    }
    // Everything until the server closes or `patience` is over.
    std::string read_all(std::chrono::milliseconds patience = 20s) {
        std::string all;
        for (;;) {
            std::byte buffer[4096];
            size_t got = 0;
            if (step([&] { return tls_->read(buffer, got); }, patience) != wire::Step::done) break;
            all += as_text(ByteView(buffer).first(got));
        }
        return all;
    }
    std::string read_until(std::string_view mark) {
        std::string all;
        while (all.find(mark) == std::string::npos) {
            std::byte one[1];
            size_t got = 0;
            if (step([&] { return tls_->read(one, got); }) != wire::Step::done) break;
            all += as_text(ByteView(one).first(got));
        }
        return all;
    }
    int fd() const { return fd_.get(); }

  private:
    template <class Try>
    wire::Step step(const Try& attempt, std::chrono::milliseconds patience = 10s) {
        const auto end = std::chrono::steady_clock::now() + patience;
        for (;;) {
            const wire::Step result = attempt();
            if (result != wire::Step::want_read && result != wire::Step::want_write) return result;
            pollfd waits{fd_.get(), short(result == wire::Step::want_read ? POLLIN : POLLOUT), 0};
            const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
                end - std::chrono::steady_clock::now());
            if (left.count() <= 0 || ::poll(&waits, 1, int(left.count())) <= 0) return result;
        }
    }

    std::shared_ptr<const wire::TlsContext> context_;
    Fd fd_;
    std::unique_ptr<wire::TlsSession> tls_;
};

inline size_t resident_bytes() {
    size_t pages = 0, ignored = 0;
    if (FILE* f = std::fopen("/proc/self/statm", "r")) {
        if (std::fscanf(f, "%zu %zu", &ignored, &pages) != 2) pages = 0;
        std::fclose(f);
    }
    return pages * 4096;
}

inline bool wait_until(const std::function<bool()>& condition,
                       std::chrono::milliseconds patience = 10s) {
    const auto end = std::chrono::steady_clock::now() + patience;
    while (!condition()) {
        if (std::chrono::steady_clock::now() > end) return false;
        std::this_thread::sleep_for(10ms);
    }
    return true;
}

}  // namespace herald::test
