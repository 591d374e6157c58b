// SPDX-License-Identifier: Apache-2.0
// What abuse costs a well-behaved machine: its times with the process server as it is shipped,
// store and catalog included (PUT of a segment of about 1 MiB on a kept connection, and a small GET
// on a new connection), alone, and while 200 connections are held half-open and renewed, and
// garbage, oversized requests and another machine's flipped and truncated uploads arrive, all from
// the machine's own address. Goal: p99 under abuse at most twice the baseline. Reports; never fails
// on figures.
#include <sys/socket.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#define CATCH_CONFIG_RUNNER
#include "tests/catch.hpp"
#include "tests/e2e/support/raw_tls.h"
#include "tests/e2e/support/test_site.h"
#include "tests/e2e/support/test_stream.h"
#include "user/wire/messages.h"

using namespace herald;
using namespace herald::test;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

namespace {

struct Options {
    bool quick = false;
    std::string json_path;
};
Options options;

// Of these a segment has 1 MiB, about.
constexpr int kChanges = 84;
constexpr uint64_t kDiskBytes = 16u << 20;
constexpr size_t kHalfOpen = 200;

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

// `request` says whether it was answered well. At an even pace, so that baseline and abuse see the
// same offered load; `prepare` is not timed.
template <class Prepare, class Request>
Times measure(std::chrono::milliseconds pace, const Prepare& prepare, const Request& request) {
    std::vector<double> ms;
    size_t failed = 0;
    const auto end = Clock::now() + (options.quick ? 2s : 15s);
    for (auto next = Clock::now(); next < end; next += pace) {
        prepare();
        std::this_thread::sleep_until(next);
        const auto start = Clock::now();
        if (request())
            ms.push_back(std::chrono::duration<double, std::milli>(Clock::now() - start).count());
        else
            failed++;
    }
    return summary(std::move(ms), failed);
}

// A machine of the site whose uploads are never whole.
class BadMachine {
  public:
    explicit BadMachine(const TestSite& site)
        : enrolled_(enrol_machine(site, "bad")),
          client_(site.client(enrolled_.folder)),
          stream_(enrolled_.machine, 1u << 20, 2) {
        REQUIRE(stream_.open_session(*client_).status == 200);
        segment_ = stream_.next_segment("never");
    }

    // Beside the test's thread: no assertions here.
    void upload(size_t number) {
        Bytes body = segment_.bytes;
        if (number % 2 == 0)
            body[number * 977 % body.size()] ^= std::byte{1};
        else
            body.resize(body.size() / 2);
        const auto answer =
            client_->send({"PUT",
                           fmt::format("/v1/disks/{}/segments/1", to_string(stream_.disk())),
                           {{"content-type", "application/octet-stream"},
                            {wire::kHeaderEpoch, fmt::format("{}", stream_.epoch())},
                            {wire::kHeaderDigest, to_hex(xxh3_128(segment_.bytes).bytes)}},
                           body},
                          10s);
        ++(answer && answer->status == 200 ? accepted : refused);
    }

    size_t accepted = 0, refused = 0;

  private:
    EnrolledMachine enrolled_;
    std::unique_ptr<wire::HttpClient> client_;
    TestStream stream_;
    hrl::Segment segment_;
};

// One slow-handed abuser; `held` is how many connections it has.
void abuse(const TestSite& site, BadMachine& machine, std::atomic<bool>& stop,
           std::atomic<size_t>& held) {
    std::vector<Fd> half_open(kHalfOpen);
    for (size_t i = 0; !stop; i++) {
        Fd& place = half_open[i % half_open.size()];
        place = connect_from("127.0.0.1", site.port());
        held = std::min(i + 1, half_open.size());
        const std::string_view hello("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11);
        if (place && i % 2) (void)!::send(place.get(), hello.data(), hello.size(), MSG_NOSIGNAL);
        if (i % 10 == 0) {
            const Fd fd = connect_from("127.0.0.1", site.port());
            const std::string garbage(4096, '\x42');
            if (fd) (void)!::send(fd.get(), garbage.data(), garbage.size(), MSG_NOSIGNAL);
        }
        if (i % 50 == 0) {
            auto raw =
                RawTls::connect(site.port(), tls_files(site.site() / "operator", "operator"));
            if (raw &&
                raw->write("PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: 10737418240\r\n\r\n"))
                (void)raw->read_head(50ms);
        }
        if (i % 50 == 25) machine.upload(i / 50);
        if (i > half_open.size()) std::this_thread::sleep_for(2ms);
    }
}

nlohmann::json json_of(const Times& t) {
    return {
        {"p50_ms", t.p50_ms}, {"p99_ms", t.p99_ms}, {"requests", t.requests}, {"failed", t.failed}};
}

nlohmann::json compare(const char* what, const TestSite& site, BadMachine& machine,
                       const std::function<Times()>& times) {
    const Times alone = times();
    std::atomic<bool> stop{false};
    std::atomic<size_t> held{0};
    std::thread abuser([&] { abuse(site, machine, stop, held); });
    while (held < kHalfOpen) std::this_thread::sleep_for(1ms);
    const Times abused = times();
    stop = true;
    abuser.join();
    REQUIRE(machine.accepted == 0);
    REQUIRE(machine.refused > 0);
    const double ratio = alone.p99_ms > 0 ? abused.p99_ms / alone.p99_ms : 0;
    fmt::print("{:28} alone  p50 {:7.2f} ms  p99 {:7.2f} ms  failed {}/{}\n", what, alone.p50_ms,
               alone.p99_ms, alone.failed, alone.requests);
    fmt::print("{:28} abused p50 {:7.2f} ms  p99 {:7.2f} ms  failed {}/{}\n", "", abused.p50_ms,
               abused.p99_ms, abused.failed, abused.requests);
    fmt::print("{:28} p99 ratio {:.2f} (goal <= 2)\n", "", ratio);
    return {{"alone", json_of(alone)}, {"abused", json_of(abused)}, {"p99_ratio", ratio}};
}

}  // namespace

TEST_CASE("a well-behaved machine beside an abuser") {
    TestSite site;
    BadMachine bad(site);
    auto client = site.client("machine");
    TestStream stream(site.machine(), kDiskBytes, 1);
    REQUIRE(stream.open_session(*client).status == 200);
    stream.deliver(*client, "first");

    nlohmann::json all;
    hrl::Segment segment;
    all["kept"] = compare("PUT 1 MiB, kept connection", site, bad, [&] {
        return measure(
            30ms, [&] { segment = stream.next_segment("", true, kChanges); },
            [&] { return stream.put(*client, segment).status == 200; });
    });
    all["fresh"] = compare("GET, new connection", site, bad, [&] {
        return measure(
            10ms, [] {},
            [&] {
                auto answer = site.client("operator")->send({"GET", "/v1/status", {}, {}}, 10s);
                return answer && answer->status == 200;
            });
    });
    const uint64_t resident = peak_rss_bytes(site.server().pid());
    all["segment_bytes"] = segment.bytes.size();
    all["server_resident_bytes"] = resident;
    fmt::print("segments of about {:.2f} MiB; the server's peak RSS {:.1f} MiB\n",
               double(segment.bytes.size()) / 1048576, double(resident) / 1048576);
    if (!options.json_path.empty()) std::ofstream(options.json_path) << all.dump(2) << "\n";
}

int main(int argc, char** argv) {
    CLI::App app("A well-behaved machine's request times with and without abuse");
    app.add_flag("--quick", options.quick, "2 seconds for each figure instead of 15");
    app.add_option("--json", options.json_path, "write the figures to this file");
    CLI11_PARSE(app, argc, argv);
    return Catch::Session().run(1, argv);
}
