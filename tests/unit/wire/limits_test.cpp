// SPDX-License-Identifier: Apache-2.0
// Each limit of ServerOptions: what breaks it is answered or closed, and the next client is served.
#include "tests/catch.hpp"
#include "tests/unit/wire/fixture.h"

using namespace herald;
using namespace herald::wire;
using namespace herald::test;

namespace {

double seconds_of(const std::function<void()>& work) {
    const auto start = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Sends bytes as plain TCP and returns whether the server has closed within `patience`.
bool closed_after(int fd, std::string_view text, std::chrono::milliseconds patience) {
    (void)!::send(fd, text.data(), text.size(), MSG_NOSIGNAL);
    const auto end = std::chrono::steady_clock::now() + patience;
    for (;;) {
        pollfd waits{fd, POLLIN, 0};
        const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
            end - std::chrono::steady_clock::now());
        if (left.count() <= 0 || ::poll(&waits, 1, int(left.count())) <= 0) return false;
        char buffer[4096];
        const ssize_t n = ::recv(fd, buffer, sizeof buffer, 0);
        if (n <= 0) return true;
    }
}

void check_served(TestServer& server) {
    HttpClient client = server.client();
    auto response = client.send({}, 5s);
    INFO((response ? "" : response.error().message));
    REQUIRE(response);
    CHECK(response->status == 200);
}

std::string put_head(uint64_t bytes, const char* more = "") {
    return fmt::format("PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n{}\r\n", bytes, more);
}

}  // namespace

TEST_CASE("a head larger than the limit gets 431, one just below it is served") {
    ServerOptions options;
    options.header_bytes_max = 1000;
    TestServer server(options);
    const std::string start = "GET / HTTP/1.1\r\nhost: x\r\nfill: ";
    {
        RawClient raw(server.server->port());
        raw.write(start + std::string(1000 - start.size() - 4, 'a') + "\r\n\r\n");
        CHECK(raw.read_until("\r\n\r\n").starts_with("HTTP/1.1 200 "));
        raw.write(start + std::string(1001 - start.size() - 4, 'a') + "\r\n\r\n");
        CHECK(raw.read_all().starts_with("HTTP/1.1 431 "));
    }
    {
        RawClient endless(server.server->port());
        while (endless.write("more: and more\r\n")) {
            char byte;
            if (::recv(endless.fd(), &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0) break;
        }
        CHECK(endless.read_all().starts_with("HTTP/1.1 431 "));
    }
    CHECK(server.handler.handled == 1);
    check_served(server);
}

TEST_CASE("a head that does not come to its end in time gets 408") {
    ServerOptions options;
    options.header_seconds_max = 1;
    TestServer server(options);
    RawClient raw(server.server->port());
    std::string answer;
    const double took = seconds_of([&] {
        raw.write("GET / HT");
        answer = raw.read_all();
    });
    CHECK(answer.starts_with("HTTP/1.1 408 "));
    CHECK(took > 0.9);
    CHECK(took < 5);
    CHECK(server.handler.admitted == 0);
    check_served(server);
}

TEST_CASE("a head fed byte by byte cannot outlive its time") {
    ServerOptions options;
    options.header_seconds_max = 1;
    TestServer server(options);
    RawClient raw(server.server->port());
    const double took = seconds_of([&] {
        raw.write("GET / HTTP/1.1\r\nx: ");
        for (int i = 0; i < 100; i++) {
            char byte;
            if (::recv(raw.fd(), &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0) break;
            raw.write("a");
            std::this_thread::sleep_for(50ms);
        }
    });
    CHECK(took < 4);
    CHECK(raw.read_all().starts_with("HTTP/1.1 408 "));
}

TEST_CASE("ten gibibytes are refused with 413 at once and not read") {
    TestServer server;
    RawClient raw(server.server->port());
    std::string answer;
    const double took = seconds_of([&] {
        raw.write(put_head(10ull << 30));
        answer = raw.read_all();
    });
    CHECK(answer.starts_with("HTTP/1.1 413 "));
    CHECK(answer.find("16777216") != std::string::npos);
    CHECK(took < 3.5);
    CHECK(server.handler.handled == 0);
    RawClient huge(server.server->port());
    huge.write("PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999999\r\n\r\n");
    CHECK(huge.read_all().starts_with("HTTP/1.1 400 "));
    check_served(server);
}

TEST_CASE("a client that sends its whole refused body before it reads still gets the refusal") {
    TestServer server;
    server.handler.put_bytes_max = 1000;
    RawClient raw(server.server->port());
    const size_t bytes = 6u << 20;
    CHECK(raw.write(put_head(bytes) + std::string(bytes, 'x')));
    CHECK(raw.read_all().starts_with("HTTP/1.1 413 "));
}

TEST_CASE("a chunked body gets 411, two lengths get 400") {
    TestServer server;
    const auto answer_to = [&](const std::string& text) {
        RawClient raw(server.server->port());
        raw.write(text);
        return raw.read_all().substr(0, 13);
    };
    const std::string start = "PUT / HTTP/1.1\r\nhost: x\r\n";
    CHECK(answer_to(start + "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n") ==
          "HTTP/1.1 411 ");
    CHECK(answer_to(start + "transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\nhello") ==
          "HTTP/1.1 400 ");
    CHECK(answer_to(start + "content-length: 5\r\ncontent-length: 6\r\n\r\nhello!") ==
          "HTTP/1.1 400 ");
    CHECK(answer_to(start + "content-length: 5\r\ncontent-length: 5\r\n\r\nhello") ==
          "HTTP/1.1 400 ");
    CHECK(server.handler.admitted == 0);
}

TEST_CASE("what is not HTTP gets 400") {
    TestServer server;
    const std::string many_fields = [] {
        std::string text = "GET / HTTP/1.1\r\n";
        for (int i = 0; i < 200; i++) text += "a: b\r\n";
        return text + "\r\n";
    }();
    for (const std::string& text :
         {std::string("\r\n\r\n"), std::string("nonsense\r\n\r\n"),
          std::string("GET / HTTP/9.9\r\n\r\n"), std::string("GET  / HTTP/1.1\r\n\r\n"),
          std::string("GET x HTTP/1.1\r\n\r\n"), std::string("GET /% HTTP/1.1\r\n\r\n"),
          std::string("GET /%00 HTTP/1.1\r\n\r\n"), std::string("GET /?a=1&a=2 HTTP/1.1\r\n\r\n"),
          std::string("GET / HTTP/1.1\r\na\r\n\r\n"),
          std::string("GET / HTTP/1.1\r\n b: c\r\n\r\n"),
          std::string("GET / HTTP/1.1\r\ncontent-length: -1\r\n\r\n"),
          std::string("\x16\x03\x01\x00\x00\r\n\r\n", 9), many_fields}) {
        RawClient raw(server.server->port());
        raw.write(text);
        INFO(text);
        CHECK(raw.read_all().starts_with("HTTP/1.1 400 "));
    }
    CHECK(server.handler.admitted == 0);
    check_served(server);
}

TEST_CASE("a body that does not come in time gets 408") {
    ServerOptions options;
    options.body_seconds_max = 1;
    TestServer server(options);
    RawClient raw(server.server->port());
    raw.write(put_head(1000) + "part of it");
    std::string answer;
    CHECK(seconds_of([&] { answer = raw.read_all(); }) < 5);
    CHECK(answer.starts_with("HTTP/1.1 408 "));
    CHECK(server.handler.handled == 0);
    check_served(server);
}

TEST_CASE("an upload that the client gives up reaches no handler") {
    TestServer server;
    {
        RawClient raw(server.server->port());
        raw.write(put_head(1000) + "part of it");
        REQUIRE(wait_until([&] { return server.handler.admitted == 1; }));
    }
    REQUIRE(wait_until([&] { return server.server->counters().connections == 0; }));
    CHECK(server.handler.handled == 0);
    check_served(server);
}

TEST_CASE("an idle connection is closed after its time") {
    ServerOptions options;
    options.idle_seconds_max = 1;
    TestServer server(options);
    RawClient raw(server.server->port());
    std::string answer;
    const double took = seconds_of([&] { answer = raw.read_all(); });
    CHECK(answer.empty());
    CHECK(took > 0.9);
    CHECK(took < 5);
}

TEST_CASE("connections beyond the limit are refused while verified ones keep their place") {
    ServerOptions options;
    options.connections_max = 4;
    options.connections_per_address_max = 4;
    TestServer server(options);
    std::vector<std::unique_ptr<RawClient>> peers;
    for (int i = 0; i < 4; i++) {
        peers.push_back(std::make_unique<RawClient>(server.server->port()));
        peers.back()->write("GET / HTTP/1.1\r\nhost: x\r\n\r\n");
        REQUIRE(peers.back()->read_until("\r\n\r\n").starts_with("HTTP/1.1 200 "));
    }
    HttpClient fifth = server.client();
    CHECK_FALSE(fifth.send({}, 2s));
    CHECK(server.server->counters().refused_limit == 1);
    peers[0]->write("GET / HTTP/1.1\r\nhost: x\r\n\r\n");
    CHECK(peers[0]->read_until("\r\n\r\n").starts_with("HTTP/1.1 200 "));
    peers.pop_back();
    REQUIRE(wait_until([&] { return server.server->counters().connections == 3; }));
    CHECK(fifth.send({}, 5s));
}

TEST_CASE("one address has its own limit, another address is served") {
    ServerOptions options;
    options.connections_per_address_max = 2;
    TestServer server(options);
    std::vector<std::unique_ptr<RawClient>> peers;
    for (int i = 0; i < 2; i++) {
        peers.push_back(std::make_unique<RawClient>(server.server->port(), "machine", "127.0.0.5"));
        peers.back()->write("GET / HTTP/1.1\r\nhost: x\r\n\r\n");
        REQUIRE(peers.back()->read_until("\r\n\r\n").starts_with("HTTP/1.1 200 "));
    }
    const Fd third = tcp_connect(server.server->port(), "127.0.0.5");
    CHECK(closed_after(third.get(), "", 3s));
    check_served(server);
}

TEST_CASE("half-open connections give way to a newcomer from the same address") {
    ServerOptions options;
    options.connections_max = 20;
    options.connections_per_address_max = 10;
    TestServer server(options);
    std::vector<Fd> silent;
    for (int i = 0; i < 50; i++) silent.push_back(tcp_connect(server.server->port()));
    check_served(server);
    CHECK(server.server->counters().connections <= 11);
    CHECK(server.server->counters().refused_limit >= 40);
}

TEST_CASE("a handshake that does not come to its end in time is closed") {
    ServerOptions options;
    options.header_seconds_max = 1;
    TestServer server(options);
    const Fd silent = tcp_connect(server.server->port());
    const Fd half = tcp_connect(server.server->port());
    // The first bytes of a handshake record that promises 512 more.
    const std::string_view start("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11);
    CHECK(closed_after(half.get(), start, 4s));
    CHECK(closed_after(silent.get(), "", 4s));
    CHECK(wait_until([&] { return server.server->counters().refused_tls == 2; }));
    check_served(server);
}

TEST_CASE("plain HTTP and garbage on the TLS port are closed without reaching a handler") {
    TestServer server;
    std::string garbage(100000, '\0');
    for (size_t i = 0; i < garbage.size(); i++) garbage[i] = char(i * 7 + (i >> 8));
    for (const std::string& text : {std::string("GET / HTTP/1.1\r\nhost: x\r\n\r\n"), garbage,
                                    std::string(1000, '\0'), std::string("\x16\x03\x01\xff\xff")}) {
        const Fd fd = tcp_connect(server.server->port());
        if (text.size() == 5) {
            // A record longer than TLS allows.
            CHECK(closed_after(fd.get(), text + std::string(70000, 'x'), 5s));
        } else {
            CHECK(closed_after(fd.get(), text, 5s));
        }
    }
    CHECK(wait_until([&] { return server.server->counters().refused_tls == 4; }));
    CHECK(server.handler.admitted == 0);
    check_served(server);
}

TEST_CASE("uploads beyond the memory for bodies wait, then get 503 with Retry-After") {
    ServerOptions options;
    options.bodies_bytes_max = 100000;
    TestServer server(options);
    {
        RawClient holder(server.server->port());
        holder.write(put_head(60000) + "x");
        REQUIRE(wait_until([&] { return server.handler.admitted == 1; }));
        // The same peer again: half of the memory is the most it gets while it holds some.
        RawClient again(server.server->port());
        again.write(put_head(30000));
        // Another peer: there is no room.
        RawClient other(server.server->port(), "operator");
        other.write(put_head(50000));
        const std::string refused = again.read_all();
        CHECK(refused.starts_with("HTTP/1.1 503 "));
        CHECK(refused.find("retry-after: 1\r\n") != std::string::npos);
        CHECK(refused.find(kErrorBusy) != std::string::npos);
        CHECK(other.read_all().starts_with("HTTP/1.1 503 "));
        // What fits is served meanwhile.
        HttpClient small = server.client("operator");
        auto response = small.send({"PUT", "/", {}, Bytes(40000)}, 5s);
        REQUIRE(response);
        CHECK(response->status == 200);
    }
    HttpClient later = server.client();
    auto response = later.send({"PUT", "/", {}, Bytes(100000)}, 5s);
    REQUIRE(response);
    CHECK(response->status == 200);
    CHECK(later.send({"PUT", "/", {}, Bytes(100001)}, 5s)->status == 413);
}

TEST_CASE("an upload that waits for memory goes on when there is some") {
    ServerOptions options;
    options.bodies_bytes_max = 100000;
    TestServer server(options);
    auto holder = std::make_unique<RawClient>(server.server->port());
    holder->write(put_head(80000) + "x");
    REQUIRE(wait_until([&] { return server.handler.admitted == 1; }));
    std::thread giver([&] {
        wait_until([&] { return server.handler.admitted == 2; });
        std::this_thread::sleep_for(100ms);
        holder.reset();
    });
    HttpClient waiting = server.client("operator");
    auto response = waiting.send({"PUT", "/", {}, Bytes(50000)}, 10s);
    giver.join();
    REQUIRE(response);
    CHECK(response->status == 200);
}

TEST_CASE("a client that does not read its answer is closed after the time for bodies") {
    ServerOptions options;
    options.body_seconds_max = 1;
    TestServer server(options);
    server.handler.answer = [](const RequestHead&, Bytes) {
        ServerResponse response;
        response.body.resize(32u << 20);
        return response;
    };
    RawClient raw(server.server->port());
    raw.write("GET / HTTP/1.1\r\nhost: x\r\n\r\n");
    REQUIRE(wait_until([&] { return server.handler.handled == 1; }));
    CHECK(wait_until([&] { return server.server->counters().connections == 0; }, 8s));
}

TEST_CASE("stop ends within its grace though a client holds an upload open") {
    TestServer server;
    RawClient raw(server.server->port());
    raw.write(put_head(1000) + "x");
    REQUIRE(wait_until([&] { return server.handler.admitted == 1; }));
    CHECK(seconds_of([&] { server.stop(); }) < 13);
}
