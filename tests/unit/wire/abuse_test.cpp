// SPDX-License-Identifier: Apache-2.0
// Everything hostile at once, from the same address, while a well-behaved client goes on working.
#include <algorithm>

#include "tests/catch.hpp"
#include "tests/unit/wire/fixture.h"

using namespace herald;
using namespace herald::wire;
using namespace herald::test;

namespace {

constexpr size_t kResidentBytesMax = 256u << 20;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

unsigned rounds() {
    const char* tier = std::getenv("HERALD_TIER");
    const std::string name = tier ? tier : "check";
    return name == "nightly" ? 200 : name == "ci" ? 20 : 8;
}

void abuse(uint16_t port, std::atomic<bool>& stop) {
    while (!stop) {
        std::vector<Fd> half_open;
        for (int i = 0; i < 200; i++) half_open.push_back(tcp_connect(port));
        // Half of them begin a handshake or send noise, the rest stay silent.
        for (size_t i = 0; i < half_open.size(); i += 2) {
            const std::string_view bytes =
                i % 4 ? std::string_view("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11)
                      : std::string_view("GET / HTTP/1.1\r\n\r\n");
            (void)!::send(half_open[i].get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
        }
        for (int i = 0; i < 5 && !stop; i++) {
            RawClient oversized(port);
            if (oversized.fd() < 0) continue;
            oversized.write("PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: 10737418240\r\n\r\n", 1s);
            oversized.read_all(100ms);
            RawClient endless(port);
            if (endless.fd() < 0) continue;
            for (int n = 0; n < 2000 && endless.write("more: and more and more\r\n", 1s); n++) {
            }
            RawClient aborted(port);
            if (aborted.fd() < 0) continue;
            aborted.write("PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: 8388608\r\n\r\nxxxx", 1s);
        }
    }
}

}  // namespace

TEST_CASE("a well-behaved client is served throughout abuse and memory stays bounded") {
    TestServer server;
    std::atomic<bool> stop{false};
    std::thread abuser([&] { abuse(server.server->port(), stop); });
    const size_t resident_before = resident_bytes();
    size_t resident_most = 0;
    const Bytes body(1u << 20, std::byte{7});
    unsigned failures = 0;
    std::string first_failure;
    const unsigned requests = rounds() * 25;
    for (unsigned i = 0; i < requests; i++) {
        // A new connection every time for one half, a kept one for the other.
        static thread_local std::unique_ptr<HttpClient> kept;
        if (!kept || i % 2)
            kept = std::make_unique<HttpClient>(Endpoint{"127.0.0.1", server.server->port()},
                                                certificates().context("machine"));
        auto response = kept->send({"PUT", "/", {}, body}, 5s);
        // A newcomer may lose its place to a newer one before it is verified, and asks again as
        // every client of ours does.
        for (int again = 0; again < 3 && !response && response.error().kind == ErrorKind::retry;
             again++)
            response = kept->send({"PUT", "/", {}, body}, 5s);
        if (!response || response->status != 200 || response->body != body) {
            failures++;
            if (first_failure.empty())
                first_failure =
                    response ? std::to_string(response->status) : response.error().message;
        }
        resident_most = std::max(resident_most, resident_bytes());
        if (i + 1 == requests) kept.reset();
    }
    stop = true;
    abuser.join();
    const ServerCounters counters = server.server->counters();
    INFO(first_failure);
    CHECK(failures == 0);
    CHECK(counters.refused_tls > 0);
    // A sanitizer's own memory is not the server's.
    if (!kSanitized) CHECK(resident_most < resident_before + kResidentBytesMax);
}
