// SPDX-License-Identifier: Apache-2.0
#include "tests/catch.hpp"
#include "tests/unit/wire/fixture.h"

using namespace herald;
using namespace herald::wire;
using namespace herald::test;

namespace {

Bytes pattern(size_t bytes) {
    Bytes made(bytes);
    uint32_t x = 1;
    for (auto& b : made) b = std::byte((x = x * 1664525 + 1013904223) >> 24);
    return made;
}

}  // namespace

TEST_CASE("a request carries method, path, query, headers, body and the peer's identity") {
    TestServer server;
    server.handler.answer = [](const RequestHead& head, Bytes body) {
        CHECK(head.method == "PUT");
        CHECK(head.path == "/v1/a b");
        CHECK(head.query == std::map<std::string, std::string>{{"first", "1"}, {"x", "&y"}});
        CHECK(head.headers.at("herald-epoch") == "7");
        CHECK(head.content_bytes == 4);
        CHECK(head.peer.role == Role::machine);
        CHECK(head.peer.machine == certificates().machine);
        CHECK(as_text(body) == "body");
        return json_response(201, R"({"a":1})");
    };
    HttpClient client = server.client();
    auto response = client.send(
        {"PUT", "/v1/a%20b?first=1&x=%26y", {{"herald-epoch", "7"}}, as_bytes("body")}, 5s);
    REQUIRE(response);
    CHECK(response->status == 201);
    CHECK(response->headers.at("content-type") == "application/json");
    CHECK(as_text(response->body) == R"({"a":1})");
}

TEST_CASE("bodies of every size come back whole over one connection") {
    TestServer server;
    HttpClient client = server.client("operator");
    for (const size_t bytes : {0ul, 1ul, 16383ul, 16384ul, 16385ul, 100000ul, 16ul << 20}) {
        INFO(bytes);
        const Bytes body = pattern(bytes);
        auto response = client.send({"PUT", "/", {}, body}, 20s);
        REQUIRE(response);
        CHECK(response->status == 200);
        CHECK(response->headers.at("peer") == "operator:anna");
        CHECK((response->body == body));
    }
    CHECK(server.server->counters().accepted == 1);
    CHECK(server.server->counters().requests == 7);
}

TEST_CASE("a range of a file is sent as a body") {
    TestServer server;
    TempDir dir;
    const auto path = dir.path() / "segment";
    const Bytes content = pattern(1000003);
    REQUIRE(replace_file(path, content));
    server.handler.answer = [&](const RequestHead&, Bytes) {
        ServerResponse response;
        response.file.emplace();
        response.file->fd = std::move(*open_file(path, O_RDONLY));
        response.file->offset = 100;
        response.file->length = 1000000 - 100;
        return response;
    };
    HttpClient client = server.client();
    auto response = client.send({}, 5s);
    REQUIRE(response);
    CHECK((response->body == Bytes(content.begin() + 100, content.begin() + 1000000)));

    // A file shorter than promised cannot be made good: the connection ends, the next one works.
    REQUIRE(replace_file(path, ByteView(content).first(500000)));
    auto cut = client.send({}, 5s);
    REQUIRE_FALSE(cut);
    CHECK(cut.error().kind == ErrorKind::retry);
    REQUIRE(replace_file(path, content));
    CHECK(client.send({}, 5s));
}

TEST_CASE("an idle connection that the server closed is made anew without an error") {
    ServerOptions options;
    options.idle_seconds_max = 1;
    TestServer server(options);
    HttpClient client = server.client();
    REQUIRE(client.send({}, 5s));
    REQUIRE(wait_until([&] { return server.server->counters().connections == 0; }));
    REQUIRE(client.send({}, 5s));
    CHECK(server.server->counters().accepted == 2);
}

TEST_CASE("the client keeps its deadline when the server does not answer") {
    TestServer server;
    std::atomic<bool> go{false};
    server.handler.answer = [&](const RequestHead&, Bytes) {
        wait_until([&] { return go.load(); });
        return ServerResponse{};
    };
    HttpClient client = server.client();
    const auto start = std::chrono::steady_clock::now();
    auto response = client.send({}, 300ms);
    const auto took = std::chrono::steady_clock::now() - start;
    go = true;
    REQUIRE_FALSE(response);
    CHECK(response.error().kind == ErrorKind::retry);
    CHECK(took >= 290ms);
    CHECK(took < 3s);
    CHECK(client.send({}, 5s));
}

TEST_CASE("abort ends a send under way and all later ones") {
    TestServer server;
    std::atomic<bool> go{false};
    server.handler.answer = [&](const RequestHead&, Bytes) {
        wait_until([&] { return go.load(); });
        return ServerResponse{};
    };
    HttpClient client = server.client();
    std::thread other([&] {
        wait_until([&] { return server.handler.handled == 1; });
        client.abort();
    });
    auto response = client.send({}, 30s);
    other.join();
    go = true;
    REQUIRE_FALSE(response);
    CHECK(response.error().kind == ErrorKind::retry);
    CHECK_FALSE(client.send({}, 30s));
}

TEST_CASE("nobody listening is a retry error that names the server") {
    uint16_t port = 0;
    {
        TestServer server;
        port = server.server->port();
    }
    HttpClient client({"127.0.0.1", port}, certificates().context("machine"));
    auto response = client.send({}, 2s);
    REQUIRE_FALSE(response);
    CHECK(response.error().kind == ErrorKind::retry);
    CHECK(response.error().message.find("127.0.0.1:" + std::to_string(port)) != std::string::npos);
}

TEST_CASE("an answer larger than the caller allows is refused") {
    TestServer server;
    server.handler.answer = [](const RequestHead&, Bytes) {
        ServerResponse response;
        response.body.resize(1001);
        return response;
    };
    HttpClient client = server.client();
    CHECK_FALSE(client.send({}, 5s, 1000));
    CHECK(client.send({}, 5s, 1001));
}

TEST_CASE("a refusal of a body arrives while the body is still being sent") {
    TestServer server;
    server.handler.put_bytes_max = 1000;
    HttpClient client = server.client();
    const Bytes body(8u << 20);
    for (int i = 0; i < 3; i++) {
        auto response = client.send({"PUT", "/", {}, body}, 10s);
        REQUIRE(response);
        CHECK(response->status == 413);
        CHECK(error_of(*response).code == kErrorBadRequest);
    }
    auto forbidden = client.send({"PUT", "/forbidden", {}, body}, 10s);
    REQUIRE(forbidden);
    CHECK(forbidden->status == 403);
    CHECK(server.handler.handled == 0);
    CHECK(client.send({}, 5s));
}

TEST_CASE("a handler that throws is answered with 500 and the server goes on") {
    TestServer server;
    server.handler.answer = [](const RequestHead& head, Bytes) -> ServerResponse {
        if (head.path == "/bad") throw std::runtime_error("on purpose");
        return {};
    };
    HttpClient client = server.client();
    auto response = client.send({"GET", "/bad", {}, {}}, 5s);
    REQUIRE(response);
    CHECK(response->status == 500);
    CHECK(client.send({}, 5s)->status == 200);
}

TEST_CASE("stop lets a request under way finish and ends idle connections") {
    TestServer server;
    std::atomic<bool> go{false};
    server.handler.answer = [&](const RequestHead& head, Bytes) {
        if (head.path == "/slow") wait_until([&] { return go.load(); });
        return json_response(200, "{}");
    };
    HttpClient idle = server.client();
    REQUIRE(idle.send({}, 5s));
    HttpClient slow = server.client();
    Result<HttpResponse> response = fail(ErrorKind::retry, "not sent");
    std::thread sender([&] { response = slow.send({"GET", "/slow", {}, {}}, 20s); });
    REQUIRE(wait_until([&] { return server.handler.handled == 2; }));
    std::thread stopper([&] { server.stop(); });
    REQUIRE(wait_until([&] { return server.server->counters().connections == 1; }));
    CHECK_FALSE(idle.send({}, 1s));
    go = true;
    sender.join();
    stopper.join();
    REQUIRE(response);
    CHECK(response->status == 200);
    CHECK(response->headers.at("connection") == "close");
}

TEST_CASE("requests sent ahead are answered in order") {
    TestServer server;
    server.handler.answer = [](const RequestHead& head, Bytes body) {
        return json_response(200, head.path + std::string(as_text(body)));
    };
    RawClient raw(server.server->port());
    raw.write(
        "PUT /a HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nxyz"
        "GET /b HTTP/1.1\r\nhost: x\r\n\r\n"
        "GET /c HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    const std::string all = raw.read_all();
    const auto a = all.find("/axyz"), b = all.find("/b"), c = all.find("/c");
    REQUIRE(c != std::string::npos);
    CHECK(a < b);
    CHECK(b < c);
}

TEST_CASE("a client that expects 100-continue gets it before it sends, or the refusal") {
    TestServer server;
    RawClient raw(server.server->port());
    raw.write("PUT / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n");
    CHECK(raw.read_until("\r\n\r\n").starts_with("HTTP/1.1 100 "));
    raw.write("hello");
    CHECK(raw.read_until("hello").starts_with("HTTP/1.1 200 "));

    raw.write(
        "PUT /forbidden HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n"
        "content-length: 5\r\n\r\n");
    CHECK(raw.read_all().starts_with("HTTP/1.1 403 "));
}
