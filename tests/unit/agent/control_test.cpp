// SPDX-License-Identifier: Apache-2.0
#include "user/agent/control.h"

#include <sys/socket.h>
#include <sys/stat.h>

#include <atomic>
#include <thread>

#include "herald/limits.h"
#include "tests/catch.hpp"
#include "tests/temp_dir.h"
#include "user/agent/unix_socket.h"

using namespace herald;
using namespace herald::agent;
using namespace std::chrono_literals;
using nlohmann::json;

namespace {

// Answers {"echo": request}; "hold" waits for a further request; "throw" throws; "fail" fails.
void answer(const json& request, ControlConnection& peer) {
    const std::string op = request.at("op");
    if (op == "hold") {
        (void)peer.send({{"phase", "catch_up"}});
        (void)peer.send({{"frozen", true}});
        json next;
        auto received = peer.receive(next, 200ms);
        const char* what = !received                        ? "error"
                           : *received == Received::message ? "message"
                           : *received == Received::timeout ? "timeout"
                                                            : "closed";
        (void)peer.send({{"hold", what}});
    } else if (op == "fail") {
        (void)peer.send_error({ErrorKind::corrupt, "it is broken", 0});
    } else if (op == "big") {
        (void)peer.send({{"text", std::string(1 << 20, 'x')}});
    } else {
        (void)peer.send({{"echo", request}});
    }
}

Result<json> ask(const std::filesystem::path& socket, const json& request) {
    auto client = ControlClient::connect(socket);
    if (!client) return pass(client);
    return client->request(request, 5s);
}

// Sends raw text and returns the first line that comes back.
std::string raw(const std::filesystem::path& socket, const std::string& text) {
    auto fd = connect_unix(socket, SOCK_STREAM);
    REQUIRE(fd);
    size_t sent = 0;
    while (sent < text.size()) {
        const ssize_t n = ::send(fd->get(), text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
        if (n <= 0) break;
        sent += size_t(n);
    }
    std::string line;
    char c;
    while (::recv(fd->get(), &c, 1, 0) == 1 && c != '\n') line += c;
    return line;
}

}  // namespace

TEST_CASE("a request is answered, several on one connection, on a socket for root alone") {
    test::TempDir dir;
    const auto path = dir.path() / "c.sock";
    auto server = ControlServer::start(path, answer);
    REQUIRE(server);
    struct stat st {};
    REQUIRE(::stat(path.c_str(), &st) == 0);
    CHECK((st.st_mode & 0777) == 0600);
    auto client = ControlClient::connect(path);
    REQUIRE(client);
    for (int i = 0; i < 3; ++i) {
        auto got = client->request({{"op", "x"}, {"n", i}}, 5s);
        REQUIRE(got);
        CHECK((*got)["echo"]["n"] == i);
    }
    auto big = client->request({{"op", "big"}}, 5s);
    REQUIRE(big);
    CHECK((*big)["text"].get<std::string>().size() == 1 << 20);
    server->reset();
    CHECK_FALSE(std::filesystem::exists(path));
    CHECK_FALSE(client->request({{"op", "x"}}, 5s));
}

TEST_CASE("an error answer becomes an error of its kind, a throwing handler an error answer") {
    test::TempDir dir;
    auto server = ControlServer::start(dir.path() / "c.sock", answer);
    REQUIRE(server);
    auto failed = ask(dir.path() / "c.sock", {{"op", "fail"}});
    REQUIRE_FALSE(failed);
    CHECK(failed.error().kind == ErrorKind::corrupt);
    CHECK(failed.error().message == "it is broken");
    auto thrown = ask(dir.path() / "c.sock", {{"op", 7}});
    REQUIRE_FALSE(thrown);
    CHECK(thrown.error().message.find("request refused") != std::string::npos);
    CHECK(ask(dir.path() / "c.sock", {{"op", "x"}}));
}

TEST_CASE("a held request sees the next message, a timeout and a disconnect") {
    test::TempDir dir;
    auto server = ControlServer::start(dir.path() / "c.sock", answer);
    REQUIRE(server);
    for (bool thaw : {true, false}) {
        auto client = ControlClient::connect(dir.path() / "c.sock");
        REQUIRE(client);
        auto first = client->request({{"op", "hold"}}, 5s);
        REQUIRE(first);
        CHECK((*first)["phase"] == "catch_up");
        auto second = client->next(5s);
        REQUIRE(second);
        CHECK((*second)["frozen"] == true);
        if (thaw) REQUIRE(client->send({{"op", "thaw"}}));
        auto last = client->next(5s);
        REQUIRE(last);
        CHECK((*last)["hold"] == (thaw ? "message" : "timeout"));
    }
    auto client = ControlClient::connect(dir.path() / "c.sock");
    REQUIRE(client);
    REQUIRE(client->request({{"op", "hold"}}, 5s));
    REQUIRE(client->next(5s));
    ::shutdown(client->connection().fd(), SHUT_WR);
    auto last = client->next(5s);
    REQUIRE(last);
    CHECK((*last)["hold"] == "closed");
}

TEST_CASE("lines that are not JSON objects or are too long are refused") {
    test::TempDir dir;
    auto server = ControlServer::start(dir.path() / "c.sock", answer);
    REQUIRE(server);
    const auto path = dir.path() / "c.sock";
    for (const char* text : {"hello\n", "[1,2]\n", "{\"op\":\n", "\n", "7\n"}) {
        CHECK(raw(path, text).find("not a JSON object") != std::string::npos);
    }
    const std::string endless(HERALD_CONTROL_LINE_BYTES_MAX + 2, 'x');
    CHECK(raw(path, endless).find("longer than") != std::string::npos);
    // Exactly at the limit is fine.
    json fits = {{"op", "x"}, {"pad", ""}};
    fits["pad"] = std::string(HERALD_CONTROL_LINE_BYTES_MAX - fits.dump().size(), 'x');
    CHECK(fits.dump().size() == HERALD_CONTROL_LINE_BYTES_MAX);
    CHECK(ask(path, fits));
}

TEST_CASE("one connection too many is refused with a reason; a place that is free again is given") {
    test::TempDir dir;
    auto server = ControlServer::start(dir.path() / "c.sock", answer);
    REQUIRE(server);
    std::vector<ControlClient> clients;
    for (unsigned i = 0; i < HERALD_CONTROL_CONNECTIONS_MAX; ++i) {
        auto client = ControlClient::connect(dir.path() / "c.sock");
        REQUIRE(client);
        REQUIRE(client->request({{"op", "x"}}, 5s));
        clients.push_back(std::move(*client));
    }
    auto refused = ask(dir.path() / "c.sock", {{"op", "x"}});
    REQUIRE_FALSE(refused);
    CHECK(refused.error().kind == ErrorKind::retry);
    CHECK(refused.error().message.find("connections are open") != std::string::npos);
    clients.pop_back();
    bool served = false;
    for (int i = 0; i < 100 && !served; ++i) {
        std::this_thread::sleep_for(5ms);
        served = bool(ask(dir.path() / "c.sock", {{"op", "x"}}));
    }
    CHECK(served);
}

TEST_CASE("a dead server's socket file is replaced, a live one's and a plain file are not") {
    test::TempDir dir;
    const auto path = dir.path() / "c.sock";
    {
        auto left = listen_unix(path, SOCK_STREAM, 1);
        REQUIRE(left);
    }
    REQUIRE(std::filesystem::exists(path));
    auto server = ControlServer::start(path, answer);
    REQUIRE(server);
    auto second = ControlServer::start(path, answer);
    REQUIRE_FALSE(second);
    CHECK(second.error().message.find("another process listens") != std::string::npos);
    REQUIRE(replace_file(dir.path() / "file", as_bytes("x")));
    CHECK_FALSE(ControlServer::start(dir.path() / "file", answer));
    CHECK_FALSE(ControlServer::start(dir.path() / std::string(200, 'x'), answer));
}

TEST_CASE("a client with nobody to talk to says what to start") {
    test::TempDir dir;
    auto client = ControlClient::connect(dir.path() / "none.sock");
    REQUIRE_FALSE(client);
    CHECK(client.error().message.find("systemctl start herald-replicator") != std::string::npos);
}

TEST_CASE("a server that stops ends its connections, also one that waits in a handler") {
    test::TempDir dir;
    std::atomic<int> closed{0};
    auto server =
        ControlServer::start(dir.path() / "c.sock", [&](const json&, ControlConnection& peer) {
            (void)peer.send({{"waiting", true}});
            json next;
            auto received = peer.receive(next, 1h);
            if (received && *received == Received::closed) ++closed;
        });
    REQUIRE(server);
    auto client = ControlClient::connect(dir.path() / "c.sock");
    REQUIRE(client);
    REQUIRE(client->request({{"op", "x"}}, 5s));
    server->reset();
    CHECK(closed == 1);
}

TEST_CASE("a server whose handler does not return says so instead of waiting for it") {
    test::TempDir dir;
    std::atomic<bool> go_on{false};
    auto server = ControlServer::start(dir.path() / "c.sock", [&](const json&, ControlConnection&) {
        while (!go_on) std::this_thread::sleep_for(1ms);
    });
    REQUIRE(server);
    auto client = ControlClient::connect(dir.path() / "c.sock");
    REQUIRE(client);
    REQUIRE(client->send({{"op", "x"}}));
    std::this_thread::sleep_for(50ms);
    CHECK_FALSE((*server)->stop(std::chrono::steady_clock::now() + 50ms));
    go_on = true;
    CHECK((*server)->stop(std::chrono::steady_clock::now() + 60s));
}
