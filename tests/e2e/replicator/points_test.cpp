// SPDX-License-Identifier: Apache-2.0
// The daemon end to end: a live filesystem, points under freezes, and what refuses them.
#include <signal.h>

#include <fcntl.h>
#include <iostream>
#include <thread>

#include "tests/catch.hpp"
#include "tests/e2e/replicator/protected_machine.h"

using namespace herald;
using namespace herald::test;
using namespace std::chrono_literals;

namespace {

#define NEEDS_PROTECTED_MACHINE()                                                \
    if (const std::string why = missing_for_protected_machine(); !why.empty()) { \
        std::cout << "SKIPPED: " << why << "\n";                                 \
        return;                                                                  \
    }

// Writes files until it is gone.
class Workload {
  public:
    explicit Workload(std::filesystem::path dir)
        : dir_(std::move(dir)), thread_([this] { run(); }) {}
    ~Workload() {
        stop_ = true;
        thread_.join();
    }

  private:
    void run() {
        for (unsigned i = 0; !stop_; ++i) {
            // Closed on exec: a daemon started meanwhile must not keep the mount busy.
            const auto path = dir_ / ("f" + std::to_string(i % 20));
            if (auto file = open_file(path, O_WRONLY | O_CREAT | O_TRUNC)) {
                const Bytes bytes(size_t(1 + i % 7) * 37'000, std::byte('a' + i % 26));
                (void)write_exact(file->get(), 0, bytes, path.native());
            }
            std::this_thread::sleep_for(3ms);
        }
    }
    std::filesystem::path dir_;
    std::atomic<bool> stop_{false};
    std::thread thread_;
};

}  // namespace

TEST_CASE("points of a busy filesystem restore exactly, across kills of both sides") {
    NEEDS_PROTECTED_MACHINE();
    ProtectedMachine machine("192M");
    MountedAt mounted("ext4", machine.disk().device(), machine.site().dir() / "mnt");
    std::map<std::string, std::string> expected;
    machine.start();
    {
        Workload workload(mounted.path());
        while (machine.status()["state"] != "protected") std::this_thread::sleep_for(50ms);
        for (int i = 0; i < 4; ++i) {
            std::string hash;
            auto point =
                machine.tag(fmt::format("p{}", i), [&] { hash = machine.sha256_of_disk(); });
            INFO((point ? "" : point.error().message));
            REQUIRE(point);
            expected[(*point)["id"]] = hash;
            REQUIRE(machine.status()["last_point"]["id"] == (*point)["id"]);
            if (i == 0) {
                machine.kill();
                std::this_thread::sleep_for(300ms);
                machine.start();
                while (machine.status()["state"] != "protected") std::this_thread::sleep_for(50ms);
                REQUIRE(machine.status()["gap"] == "");
            }
            if (i == 1) machine.site().restart_server(200ms);
        }
    }
    REQUIRE(expected.size() == 4);
    for (const auto& [point, hash] : expected) REQUIRE(machine.sha256_of_point(point) == hash);
    REQUIRE(peak_rss_bytes(machine.replicator().pid()) < (256u << 20));
}

TEST_CASE("a terminated replicator has sent what it read, and goes on where it was") {
    NEEDS_PROTECTED_MACHINE();
    ProtectedMachine machine("32M");
    machine.start();
    machine.wait_clean();
    machine.replicator().signal(SIGTERM);
    const auto end = machine.replicator().wait(20s);
    REQUIRE(end);
    REQUIRE(end->status == 0);
    sh("dd if=/dev/urandom of=" + machine.disk().device() +
       " bs=64k seek=3 count=2 oflag=direct status=none");
    machine.start();
    machine.wait_clean();
    const auto status = machine.status();
    REQUIRE(status["gap"] == "");
    REQUIRE(status["read_bytes"] == 2 * 65536);
}

TEST_CASE("a clean disk is protected again at once after a restart, and nothing is read") {
    NEEDS_PROTECTED_MACHINE();
    ProtectedMachine machine("32M");
    machine.start();
    machine.wait_clean();
    machine.kill();
    machine.start();
    machine.wait_clean();
    REQUIRE(machine.status()["read_bytes"] == 0);
}

TEST_CASE("without a guardian nothing is frozen and the point is refused with the remedy") {
    NEEDS_PROTECTED_MACHINE();
    ProtectedMachine machine("64M");
    MountedAt mounted("ext4", machine.disk().device(), machine.site().dir() / "mnt");
    machine.start();
    machine.wait_clean();
    machine.kill_guardian();
    auto point = machine.tag("p");
    REQUIRE_FALSE(point);
    REQUIRE(point.error().message.find("herald-guardian") != std::string::npos);
    machine.start_guardian();
    std::this_thread::sleep_for(200ms);
    point = machine.tag("p");
    INFO((point ? "" : point.error().message));
    REQUIRE(point);
}

TEST_CASE("a hold that the client gives up, and writes during a hold, refuse the point") {
    NEEDS_PROTECTED_MACHINE();
    ProtectedMachine machine("32M");
    machine.start();
    machine.wait_clean();
    auto point = machine.tag("written", [&] {
        sh("dd if=/dev/urandom of=" + machine.disk().device() +
           " bs=4k seek=5 count=1 oflag=direct status=none");
    });
    REQUIRE_FALSE(point);
    REQUIRE(point.error().message.find("written") != std::string::npos);
    point = machine.tag("good");
    REQUIRE(point);
    REQUIRE(machine.sha256_of_point((*point)["id"]) == machine.sha256_of_disk());
}

TEST_CASE("a server that is away is named, nothing is lost, and it goes on by itself") {
    NEEDS_PROTECTED_MACHINE();
    ProtectedMachine machine("32M");
    machine.start();
    machine.wait_clean();
    machine.site().server().signal(SIGSTOP);
    sh("dd if=/dev/urandom of=" + machine.disk().device() +
       " bs=64k seek=9 count=20 oflag=direct status=none");
    machine.site().server().signal(SIGKILL);
    nlohmann::json status;
    for (int i = 0; i < 300 && status["state"] != "degraded"; ++i) {
        std::this_thread::sleep_for(50ms);
        status = machine.status();
    }
    REQUIRE(status["cause"].get<std::string>().find("unreachable") != std::string::npos);
    machine.site().restart_server();
    machine.wait_clean();
    auto point = machine.tag("after");
    REQUIRE(point);
    REQUIRE(machine.sha256_of_point((*point)["id"]) == machine.sha256_of_disk());
}

TEST_CASE("resync by an operator: digest sends what differs, full sends all, both restore") {
    NEEDS_PROTECTED_MACHINE();
    ProtectedMachine machine("32M");
    sh("dd if=/dev/urandom of=" + machine.disk().device() +
       " bs=1M count=8 oflag=direct status=none");
    machine.start();
    machine.wait_clean();
    const auto sent = [&] { return machine.status()["sent_bytes"].get<uint64_t>(); };
    const uint64_t after_initial = sent();
    const uint64_t epoch = machine.status()["epoch"];
    machine.ask({{"op", "resync"}, {"disk", machine.disk().device()}, {"how", "digest"}});
    for (int i = 0; i < 200 && machine.status()["epoch"] == epoch; ++i) {
        std::this_thread::sleep_for(50ms);
    }
    machine.wait_clean();
    REQUIRE(machine.status()["gap"].get<std::string>().find("operator") != std::string::npos);
    REQUIRE(sent() - after_initial < 65536);
    const uint64_t after_digest = sent();
    machine.ask({{"op", "resync"}, {"disk", machine.disk().device()}, {"how", "full"}});
    for (int i = 0; i < 200 && sent() - after_digest < (8u << 20); ++i) {
        std::this_thread::sleep_for(50ms);
    }
    machine.wait_clean();
    REQUIRE(sent() - after_digest > (8u << 20));
    auto point = machine.tag("after");
    REQUIRE(point);
    REQUIRE(machine.sha256_of_point((*point)["id"]) == machine.sha256_of_disk());
}
