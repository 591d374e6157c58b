// SPDX-License-Identifier: Apache-2.0
// What abuse costs a well-behaved client: its request times (1 MiB PUT on a kept connection, and
// a small GET on a new connection) alone, and while 200 connections are held half-open and
// renewed, garbage and oversized requests arrive, all from the client's own address.
// Goal: p99 under abuse at most twice the baseline. Reports; never fails on figures.
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/unit/wire/fixture.h"

using namespace herald;
using namespace herald::wire;
using namespace herald::test;
using Clock = std::chrono::steady_clock;

namespace {

struct Times {
    double p50_ms = 0;
    double p99_ms = 0;
    size_t failed = 0;
    size_t requests = 0;
};

Times summary(std::vector<double> ms, size_t failed) {
    std::sort(ms.begin(), ms.end());
    const auto at = [&](double q) {
        return ms.empty() ? 0.0 : ms[std::min(ms.size() - 1, size_t(double(ms.size()) * q))];
    };
    return {at(0.5), at(0.99), failed, ms.size() + failed};
}

// Requests at an even pace, so that baseline and abuse see the same offered load.
Times measure(uint16_t port, bool fresh, std::chrono::seconds length) {
    const Bytes body(1u << 20, std::byte{7});
    const Endpoint endpoint{"127.0.0.1", port};
    auto client = std::make_unique<HttpClient>(endpoint, certificates().context("machine"));
    const HttpRequest put{"PUT", "/", {}, body}, get{};
    std::vector<double> ms;
    size_t failed = 0;
    const auto end = Clock::now() + length;
    for (auto next = Clock::now(); next < end; next += 10ms) {
        std::this_thread::sleep_until(next);
        if (fresh)
            client = std::make_unique<HttpClient>(endpoint, certificates().context("machine"));
        const auto start = Clock::now();
        auto response = client->send(fresh ? get : put, 10s);
        if (response && response->status == 200)
            ms.push_back(std::chrono::duration<double, std::milli>(Clock::now() - start).count());
        else
            failed++;
    }
    return summary(std::move(ms), failed);
}

// One slow-handed abuser: 200 connections held half-open, a few renewed all the time, and now
// and then garbage or a request that breaks a limit.
void abuse(uint16_t port, std::atomic<bool>& stop) {
    std::vector<Fd> held(200);
    for (size_t i = 0; !stop; i++) {
        Fd& place = held[i % held.size()];
        place = tcp_connect(port);
        const std::string_view hello("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11);
        if (place && i % 2) (void)!::send(place.get(), hello.data(), hello.size(), MSG_NOSIGNAL);
        if (i % 10 == 0) {
            const Fd fd = tcp_connect(port);
            const std::string garbage(4096, '\x42');
            if (fd) (void)!::send(fd.get(), garbage.data(), garbage.size(), MSG_NOSIGNAL);
        }
        if (i % 50 == 0) {
            RawClient raw(port);
            if (raw.fd() >= 0) {
                raw.write("PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: 10737418240\r\n\r\n", 1s);
                raw.read_all(50ms);
            }
        }
        if (i > held.size()) std::this_thread::sleep_for(2ms);
    }
}

nlohmann::json json_of(const Times& t) {
    return {
        {"p50_ms", t.p50_ms}, {"p99_ms", t.p99_ms}, {"requests", t.requests}, {"failed", t.failed}};
}

}  // namespace

int main(int argc, char** argv) {
    bool quick = false;
    std::string json_path;
    CLI::App app("A well-behaved client's request times with and without abuse");
    app.add_flag("--quick", quick, "2 seconds for each figure instead of 15");
    app.add_option("--json", json_path, "write the figures to this file");
    CLI11_PARSE(app, argc, argv);
    spdlog::set_level(spdlog::level::warn);

    TestServer server;
    server.handler.answer = [](const RequestHead&, Bytes) { return json_response(200, "{}"); };
    const uint16_t port = server.server->port();
    const auto length = std::chrono::seconds(quick ? 2 : 15);
    nlohmann::json all;
    for (const bool fresh : {false, true}) {
        const char* what = fresh ? "GET, new connection" : "PUT 1 MiB, kept connection";
        const Times alone = measure(port, fresh, length);
        std::atomic<bool> stop{false};
        std::thread abuser([&] { abuse(port, stop); });
        wait_until([&] { return server.server->counters().connections > 100; });
        const Times abused = measure(port, fresh, length);
        stop = true;
        abuser.join();
        wait_until([&] { return server.server->counters().connections <= 1; });
        const double ratio = alone.p99_ms > 0 ? abused.p99_ms / alone.p99_ms : 0;
        fmt::print("{:28} alone  p50 {:7.2f} ms  p99 {:7.2f} ms  failed {}/{}\n", what,
                   alone.p50_ms, alone.p99_ms, alone.failed, alone.requests);
        fmt::print("{:28} abused p50 {:7.2f} ms  p99 {:7.2f} ms  failed {}/{}\n", "", abused.p50_ms,
                   abused.p99_ms, abused.failed, abused.requests);
        fmt::print("{:28} p99 ratio {:.2f} (goal <= 2)\n", "", ratio);
        all[fresh ? "fresh" : "kept"] = {
            {"alone", json_of(alone)}, {"abused", json_of(abused)}, {"p99_ratio", ratio}};
    }
    all["resident_bytes"] = resident_bytes();
    fmt::print("resident {:.1f} MiB, client, abuser and server in one process\n",
               double(resident_bytes()) / 1048576);
    if (!json_path.empty()) std::ofstream(json_path) << all.dump(2) << "\n";
    return 0;
}
