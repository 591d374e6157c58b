// SPDX-License-Identifier: Apache-2.0
// Connections that never become requests: they cost a socket and a timer, and nobody else waits.
#include <unistd.h>

#include "tests/catch.hpp"
#include "tests/e2e/bad_input/memory.h"
#include "tests/e2e/support/raw_tls.h"
#include "tests/e2e/support/test_stream.h"

using namespace herald;
using namespace herald::test;
using Clock = std::chrono::steady_clock;

namespace {

// A request of a well-behaved client, on a connection of its own; how long it took.
std::chrono::milliseconds served_in(const TestSite& site) {
    const auto began = Clock::now();
    auto answer =
        site.client("operator")->send({"GET", "/v1/status", {}, {}}, std::chrono::seconds(10));
    INFO((answer ? "" : answer.error().message));
    REQUIRE(answer);
    REQUIRE(answer->status == 200);
    return std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - began);
}

// Far above what a request takes, far below any of the server's timeouts.
constexpr std::chrono::milliseconds kServedMax{3000};

}  // namespace

TEST_CASE("headers without end are refused at the limit") {
    TestSite site;
    const auto tls = tls_files(site.site() / "operator", "operator");
    const std::string line = "X-More: " + std::string(1000, 'a') + "\r\n";
    std::string answer;
    // A client that looks for an answer while it sends, and one that does not.
    for (const bool looks : {true, false}) {
        CAPTURE(looks);
        auto raw = RawTls::connect(site.port(), tls);
        REQUIRE(raw);
        REQUIRE(raw->write("GET /v1/status HTTP/1.1\r\nHost: x\r\n"));
        size_t sent = 0;
        while (sent < (64u << 20) && raw->write(line)) {
            sent += line.size();
            if (looks && raw->has_input()) answer = raw->read_head(std::chrono::seconds(1));
            if (looks && !answer.empty()) break;
        }
        // It stops taking them once it has refused; what the socket's buffers hold is on top.
        CHECK(sent < (32u << 20));
    }
    CHECK(answer.starts_with("HTTP/1.1 431 "));
    CHECK(served_in(site) < kServedMax);
    check_server_memory(site);
}

TEST_CASE("headers that drip are cut off in time") {
    TestSite site;
    const auto tls = tls_files(site.site() / "operator", "operator");
    auto raw = RawTls::connect(site.port(), tls);
    REQUIRE(raw);
    REQUIRE(raw->write("GET /v1/status HTTP/1.1\r\n"));
    const auto began = Clock::now();
    const auto most = std::chrono::seconds(HERALD_HTTP_HEADER_SECONDS_MAX + 10);
    while (Clock::now() - began < most && raw->write("X: y\r\n")) ::usleep(200'000);
    CHECK(Clock::now() - began < most);
    check_server_memory(site);
}

TEST_CASE("200 half-open connections do not disturb a well-behaved client and are closed in time") {
    TestSite site;
    auto machine = site.client("machine");
    TestStream stream(site.machine(), 1u << 20, 1);
    REQUIRE(stream.open_session(*machine).status == 200);

    // From two other addresses, each within what one address may have; every third begins a TLS
    // handshake and stops in it.
    std::vector<Fd> half_open;
    const unsigned char hello[] = {0x16, 0x03, 0x01, 0x02, 0x00, 0x01};
    for (int i = 0; i < 200; ++i) {
        Fd fd = connect_from(i % 2 ? "127.0.0.2" : "127.0.0.3", site.port());
        REQUIRE(fd);
        if (i % 3 == 0) REQUIRE(::write(fd.get(), hello, sizeof hello) == ssize_t(sizeof hello));
        half_open.push_back(std::move(fd));
    }
    for (int i = 0; i < 20; ++i) CHECK(served_in(site) < kServedMax);
    stream.deliver(*machine, "under half-open connections");
    const auto began = Clock::now();
    for (const Fd& fd : half_open) {
        const auto left =
            std::chrono::seconds(HERALD_HTTP_HEADER_SECONDS_MAX + 15) - (Clock::now() - began);
        CHECK(closed_within(fd.get(), std::chrono::duration_cast<std::chrono::milliseconds>(left)));
    }
    CHECK(served_in(site) < kServedMax);
    check_server_memory(site);
}

TEST_CASE("one address cannot take every connection") {
    TestSite site;
    std::vector<Fd> half_open;
    for (int i = 0; i < 400; ++i) {
        Fd fd = connect_from("127.0.0.2", site.port());
        if (fd) half_open.push_back(std::move(fd));
    }
    CHECK(served_in(site) < kServedMax);
    size_t closed = 0;
    for (const Fd& fd : half_open) closed += closed_within(fd.get(), std::chrono::milliseconds(2));
    CHECK(closed + HERALD_HTTP_CONNECTIONS_PER_ADDRESS_MAX >= half_open.size());
    check_server_memory(site);
}
