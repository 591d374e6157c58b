// SPDX-License-Identifier: Apache-2.0
// What is bounded: memory by disks and by the size of one, blocks that cannot be read, and what a
// server that ends every session can make the daemon do.
#include <signal.h>

#include <fcntl.h>
#include <unistd.h>

#include <iostream>
#include <thread>

#include "herald/limits.h"
#include "tests/catch.hpp"
#include "tests/e2e/replicator/protected_machine.h"
#include "user/wire/http_server.h"
#include "user/wire/messages.h"
#include "user/wire/tls.h"

using namespace herald;
using namespace herald::test;
using namespace std::chrono_literals;

namespace {

// A server that grants every session and ends it at its first segment.
class Ending : public wire::HttpHandler {
  public:
    explicit Ending(const TestSite& site) {
        wire::ServerOptions options;
        options.address = "127.0.0.1";
        options.port = site.port();
        auto tls = wire::TlsContext::load(tls_files(site.site() / "server", "server"),
                                          wire::TlsSide::server);
        REQUIRE(tls);
        auto server = wire::HttpServer::listen(options, *tls, *this);
        INFO((server ? "" : server.error().message));
        REQUIRE(server);
        server_ = std::move(*server);
        thread_ = std::thread([this] { server_->run(); });
    }
    ~Ending() override {
        server_->stop();
        thread_.join();
    }
    tl::expected<size_t, wire::ServerResponse> admit(const wire::RequestHead&) override {
        return HERALD_SEGMENT_BYTES_MAX;
    }
    wire::ServerResponse handle(const wire::RequestHead& head, Bytes) override {
        wire::ServerResponse response;
        std::string body;
        if (head.method == "POST") {
            wire::SessionGrant grant;
            grant.epoch = ++sessions;
            grant.window_segments = 8;
            body = wire::encode(grant);
        } else {
            response.status = 409;
            body = wire::encode(wire::ErrorBody{wire::kErrorDiverged, "so it is", 0});
        }
        response.headers["content-type"] = "application/json";
        const auto bytes = as_bytes(body);
        response.body.assign(bytes.begin(), bytes.end());
        return response;
    }
    std::atomic<unsigned> sessions{0};

  private:
    std::unique_ptr<wire::HttpServer> server_;
    std::thread thread_;
};

uint64_t value_of(const nlohmann::json& status, const char* name) {
    return status[name].get<uint64_t>();
}

}  // namespace

TEST_CASE("disks protected later take their share of the memory from those there were") {
    NEEDS_PROTECTED_MACHINE();
    ProtectedMachine machine("64M");
    TempDir dir;
    machine.start();
    machine.wait_clean();
    std::vector<std::unique_ptr<LoopDisk>> others;
    for (int i = 0; i < 7; ++i) {
        others.push_back(std::make_unique<LoopDisk>(dir.path() / std::to_string(i), "8M"));
        machine.ask({{"op", "protect"}, {"path", others.back()->device()}});
    }
    machine.site().server().signal(SIGSTOP);
    sh("dd if=/dev/urandom of=" + machine.disk().device() +
       " bs=1M count=60 oflag=direct status=none");
    // An eighth of it all, half of that for segments; and one segment that was open.
    constexpr uint64_t kShare = HERALD_REPLICATOR_BYTES_MAX / 8 / 2;
    constexpr uint64_t kMost = kShare + HERALD_SEGMENT_BYTES_DEFAULT;
    uint64_t most = 0;
    for (int i = 0, full = 0; i < 600 && full < 40; ++i) {
        most = std::max(most, value_of(machine.status(), "unsent_bytes"));
        if (most >= kShare / 2) ++full;
        std::this_thread::sleep_for(50ms);
    }
    machine.site().server().signal(SIGCONT);
    CHECK(most >= kShare / 2);
    CHECK(most <= kMost);
}

TEST_CASE("a server that ends every session is asked for another one less and less often") {
    NEEDS_PROTECTED_MACHINE();
    ProtectedMachine machine("16M");
    machine.site().server().signal(SIGKILL);
    REQUIRE(machine.site().server().wait(10s));
    {
        Ending server(machine.site());
        machine.start();
        const auto status = machine.wait_for(
            {{"op", "status"}, {"disk", machine.disk().device()}}, [](const auto& disk) {
                return disk["cause"].template get<std::string>().find("sessions in a row") !=
                       std::string::npos;
            });
        CHECK(status["state"] == "degraded");
        CHECK(status["cause"].get<std::string>().find("so it is") != std::string::npos);
        // The first is repeated at once; then it is 2, 4, 8 seconds: three or four in this time.
        std::this_thread::sleep_for(8s);
        CHECK(server.sessions >= 2);
        CHECK(server.sessions <= 5);
        machine.kill();
    }
}

TEST_CASE("a disk of which more cannot be read than is remembered is called failing, by name") {
    NEEDS_PROTECTED_MACHINE();
    constexpr uint64_t kBytes =
        (uint64_t(HERALD_UNREADABLE_BLOCKS_MAX) + 9000) * HERALD_BLOCK_BYTES;
    ProtectedMachine machine(std::to_string(kBytes));
    // Beyond the end of its file a loop device with direct I/O answers with errors.
    sh("losetup --direct-io=on " + machine.disk().device());
    std::filesystem::resize_file(machine.disk().file(), 1 << 20);
    machine.start();
    const auto status = machine.wait_for(
        {{"op", "status"}, {"disk", machine.disk().device()}},
        [](const auto& disk) {
            return disk["cause"].template get<std::string>().find("is failing") !=
                       std::string::npos ||
                   disk["unreadable_blocks"] > HERALD_UNREADABLE_BLOCKS_MAX;
        },
        240s);
    // And goes on being called so while it is tried again.
    std::this_thread::sleep_for(3s);
    CHECK(machine.status()["state"] == "degraded");
    CHECK(status["state"] == "degraded");
    CHECK(status["cause"].get<std::string>().find(std::to_string(HERALD_UNREADABLE_BLOCKS_MAX)) !=
          std::string::npos);
    CHECK(peak_rss_bytes(machine.replicator().pid()) < (256u << 20));
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST_CASE("a disk of the largest size there can be takes no more memory than any other") {
    NEEDS_PROTECTED_MACHINE();
    // A file of that size: a tmpfs allows it, and stores nothing of it.
    const auto dir =
        std::filesystem::path("/dev/shm") / ("herald-largest-" + std::to_string(::getpid()));
    std::filesystem::create_directories(dir);
    struct Remove {
        ~Remove() { std::filesystem::remove_all(dir); }
        std::filesystem::path dir;
    } const remove{dir};
    ProtectedMachine machine(std::to_string(HERALD_DISK_BYTES_MAX), "", dir);
    const nlohmann::json request{{"op", "status"}, {"disk", machine.disk().device()}};
    machine.start();
    // Everything is to do: the largest that its bitmaps can be.
    auto status = machine.wait_for(
        request, [](const auto& disk) { return value_of(disk, "read_bytes") > (1u << 30); });
    constexpr uint64_t kBlocks = HERALD_DISK_BYTES_MAX / HERALD_BLOCK_BYTES;
    CHECK(value_of(status, "todo_blocks") + value_of(status, "in_flight_blocks") >
          kBlocks / 10 * 9);
    // Writes all over it: every window of the live bitmap is marked and moved.
    {
        Fd fd = *open_file(machine.disk().device(), O_WRONLY | O_DIRECT);
        auto* block = static_cast<std::byte*>(std::aligned_alloc(4096, 4096));
        std::fill_n(block, 4096, std::byte(7));
        for (uint64_t at = 0; at < 4096; ++at) {
            REQUIRE(::pwrite(fd.get(), block, 4096, off_t(at * (HERALD_DISK_BYTES_MAX / 4096))) ==
                    4096);
        }
        std::free(block);
    }
    machine.ask({{"op", "map"}, {"disk", machine.disk().device()}});
    const uint64_t read = value_of(status, "read_bytes");
    machine.wait_for(request, [&](const auto& disk) {
        return value_of(disk, "read_bytes") > read + (1u << 30);
    });
    const uint64_t first = peak_rss_bytes(machine.replicator().pid());
    CHECK(first < (256u << 20));
    // And one that finds it all marked.
    machine.kill();
    machine.start();
    machine.wait_for(request,
                     [](const auto& disk) { return value_of(disk, "read_bytes") > (1u << 30); });
    const uint64_t second = peak_rss_bytes(machine.replicator().pid());
    CHECK(second < (256u << 20));
    std::cout << "peak resident size with a disk of " << (HERALD_DISK_BYTES_MAX >> 40)
              << " TiB: " << (first >> 20) << " and " << (second >> 20) << " MiB\n";
    machine.replicator().signal(SIGTERM);
    const auto end = machine.replicator().wait(30s);
    REQUIRE(end);
    CHECK(end->status == 0);
}
#endif
