// SPDX-License-Identifier: Apache-2.0
// Clients that are not who they should be: none gets further than its certificate allows.
#include "tests/catch.hpp"
#include "tests/e2e/bad_input/memory.h"
#include "tests/e2e/support/raw_tls.h"
#include "tests/e2e/support/test_stream.h"
#include "user/wire/messages.h"

using namespace herald;
using namespace herald::test;

namespace {

constexpr char kAsk[] = "GET /v1/disks HTTP/1.1\r\nHost: x\r\n\r\n";

// What a client gets that asks with these credentials; empty: nothing at all.
std::string answer_to(uint16_t port, const std::optional<wire::TlsFiles>& tls,
                      int version = TLS1_3_VERSION) {
    auto raw = RawTls::connect(port, tls, version);
    // In TLS 1.3 the client's handshake ends before the server has looked at its certificate.
    if (!raw || !raw->write(kAsk)) return {};
    return raw->read_head(std::chrono::seconds(5));
}

}  // namespace

TEST_CASE("no certificate, a foreign one and an older TLS get no answer") {
    TestSite site;
    TestSite foreign;
    const auto ours = tls_files(site.site() / "operator", "operator");
    CHECK(answer_to(site.port(), ours).starts_with("HTTP/1.1 200"));
    CHECK(answer_to(site.port(), std::nullopt).empty());
    CHECK(answer_to(site.port(), tls_files(foreign.site() / "operator", "operator")).empty());
    CHECK(answer_to(site.port(), tls_files(foreign.site() / "machine", "machine")).empty());
    CHECK(answer_to(site.port(), ours, TLS1_2_VERSION).empty());
    // Plain HTTP, and bytes that are no protocol.
    const Fd plain = connect_from("", site.port());
    REQUIRE(plain);
    REQUIRE(::write(plain.get(), kAsk, sizeof kAsk - 1) == ssize_t(sizeof kAsk - 1));
    CHECK(closed_within(plain.get(), std::chrono::seconds(15)));
    CHECK(answer_to(site.port(), ours).starts_with("HTTP/1.1 200"));
    check_server_memory(site);
}

TEST_CASE("a server's certificate is no client's") {
    TestSite site;
    const std::string answer = answer_to(site.port(), tls_files(site.site() / "server", "server"));
    CHECK_FALSE(answer.starts_with("HTTP/1.1 2"));
}

TEST_CASE("another machine's disk is refused, for every request there is") {
    TestSite site;
    auto machine = site.client("machine");
    TestStream stream(site.machine(), 256u << 10, 1);
    REQUIRE(stream.open_session(*machine).status == 200);
    stream.deliver(*machine, "point");
    const std::string stored = site.store_listing();
    const auto next = stream.next_segment("next");

    const auto other = enrol_machine(site, "web2");
    auto intruder = site.client(other.folder);
    TestStream copy = stream;
    const auto session = copy.open_session(*intruder);
    CHECK(session.status == 403);
    CHECK(wire::error_of(session).code == wire::kErrorForbidden);
    const auto put = stream.put(*intruder, next);
    CHECK(put.status == 403);
    CHECK(wire::error_of(put).code == wire::kErrorForbidden);
    const auto digests = intruder->send(
        {"GET", "/v1/disks/" + to_string(stream.disk()) + "/digests?first=0&count=1", {}, {}},
        std::chrono::seconds(10));
    REQUIRE(digests);
    CHECK(digests->status == 403);
    CHECK(site.store_listing() == stored);
    // The owner goes on undisturbed: no epoch was lost to the intruder.
    CHECK(stream.put(*machine, next).status == 200);

    // A segment of its own disk that names the first machine in its header.
    TestStream forged(site.machine(), 256u << 10, 2);
    REQUIRE(forged.open_session(*intruder).status == 200);
    const auto answer = forged.put(*intruder, forged.next_segment("forged"));
    CHECK(answer.status >= 400);
    CHECK(answer.status < 500);
    check_server_memory(site);
}

TEST_CASE("each role gets its own requests alone") {
    TestSite site;
    auto machine = site.client("machine");
    auto op = site.client("operator");
    TestStream stream(site.machine(), 256u << 10, 1);
    REQUIRE(stream.open_session(*machine).status == 200);
    stream.deliver(*machine, "point");
    const std::string disk = "/v1/disks/" + to_string(stream.disk());
    for (const std::string& path :
         {std::string("/v1/disks"), std::string("/v1/status"), disk + "/points",
          disk + "/segments?after=0&limit=10", disk + "/segments/1"}) {
        INFO(path);
        const auto answer = machine->send({"GET", path, {}, {}}, std::chrono::seconds(10));
        REQUIRE(answer);
        CHECK(answer->status == 403);
        const auto allowed = op->send({"GET", path, {}, {}}, std::chrono::seconds(10));
        REQUIRE(allowed);
        CHECK(allowed->status == 200);
    }
    const auto next = stream.next_segment("next");
    CHECK(stream.put(*op, next).status == 403);
    CHECK(stream.put(*machine, next).status == 200);
}
