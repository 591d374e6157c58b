// SPDX-License-Identifier: Apache-2.0
// The daemon end to end: a live filesystem, points under freezes, and what refuses them.
#include <signal.h>

#include <fcntl.h>
#include <cstring>
#include <iostream>
#include <mutex>
#include <set>
#include <thread>

#include "tests/catch.hpp"
#include "tests/e2e/replicator/protected_machine.h"

using namespace herald;
using namespace herald::test;
using namespace std::chrono_literals;

namespace {

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
    machine.wait_for({{"op", "status"}, {"disk", machine.disk().device()}},
                     [&](const nlohmann::json& now) { return now["epoch"] > epoch; });
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

namespace {

// Blocks of one file, each write durable before the next: which of them an image holds tells
// whether the image is one that the disk went through.
class OrderedWriter {
  public:
    explicit OrderedWriter(const std::filesystem::path& file) {
        fd_ = *open_file(file, O_RDWR | O_CREAT);
        for (unsigned i = 0; i < kBlocks; ++i) write();
        thread_ = std::thread([this] {
            while (!stop_) {
                {
                    const std::lock_guard lock(pause);
                    write();
                }
                std::this_thread::sleep_for(15ms);
            }
        });
    }
    ~OrderedWriter() {
        stop_ = true;
        thread_.join();
    }
    uint64_t written() const { return written_; }
    // The newest number in an image; fails where an older write is missing beside it.
    static uint64_t newest_in(const std::filesystem::path& image) {
        auto fd = *open_file(image, O_RDONLY);
        const auto size = std::filesystem::file_size(image);
        std::set<uint64_t> found;
        for (uint64_t at = 0; at + kBytes <= size; at += kBytes) {
            uint64_t head[2];
            REQUIRE(read_exact(fd.get(), at, std::as_writable_bytes(std::span(head)), "image"));
            if (head[0] == kMagic) found.insert(head[1]);
        }
        REQUIRE(found.size() == kBlocks);
        REQUIRE(*found.rbegin() - *found.begin() == kBlocks - 1);
        return *found.rbegin();
    }

    std::mutex pause;

  private:
    static constexpr unsigned kBlocks = 64;
    static constexpr uint64_t kBytes = 4096;
    static constexpr uint64_t kMagic = 0x6b636f6c62676e72;

    void write() {
        const uint64_t number = written_ + 1;
        Bytes block(kBytes, std::byte(number));
        std::memcpy(block.data(), &kMagic, 8);
        std::memcpy(block.data() + 8, &number, 8);
        if (!write_exact(fd_.get(), number % kBlocks * kBytes, block, "ring")) return;
        if (::fdatasync(fd_.get()) == 0) written_ = number;
    }
    Fd fd_;
    std::atomic<uint64_t> written_{0};
    std::atomic<bool> stop_{false};
    std::thread thread_;
};

}  // namespace

TEST_CASE(
    "a filesystem that knows no freeze is named, and the point is exact while it is written") {
    NEEDS_PROTECTED_MACHINE();
    ProtectedMachine machine("64M");
    const std::string first = machine.disk().add_partition(1, 30);
    const std::string second = machine.disk().add_partition(32, 30);
    MountedAt frozen("ext4", first, machine.site().dir() / "ext4");
    // Through fuse: as vfat does in the kernel, it goes on writing whatever is frozen beside it.
    MountedAt unfrozen("ntfs", second, machine.site().dir() / "ntfs");
    machine.start();
    OrderedWriter writer(unfrozen.path() / "ring");
    Workload workload(frozen.path());
    machine.wait_protected();
    // Nobody waits for the writer here: the image has to be one that the disk went through.
    const uint64_t before = writer.written();
    auto point = machine.tag("running");
    INFO((point ? "" : point.error().message));
    REQUIRE(point);
    CHECK((*point)["consistency"] == "crash");
    REQUIRE((*point)["not_frozen"].size() == 1);
    CHECK((*point)["not_frozen"][0] ==
          "fuseblk at " + unfrozen.path().native() + ": fuseblk has no freeze");
    CHECK(machine.status()["last_point"]["not_frozen"] == (*point)["not_frozen"]);
    const auto points = machine.site().herald({"points", machine.status()["disk"], "--json"});
    CHECK(points.out.find("\"crash\"") != std::string::npos);
    const auto image = machine.restore((*point)["id"]);
    CHECK(OrderedWriter::newest_in(image) >= before);
    // And where the disk can be looked at: stopped for that, it must not have been written since
    // the last drain, or the point is refused.
    unsigned landed = 0, refused = 0;
    for (int i = 0; i < 100 && landed < 3; ++i) {
        std::string hash;
        std::unique_lock<std::mutex> paused;
        point = machine.tag(fmt::format("held {}", i), [&] {
            paused = std::unique_lock(writer.pause);
            hash = machine.sha256_of_disk();
        });
        if (!point) {
            ++refused;
            CHECK(point.error().message.find("fuseblk") != std::string::npos);
            continue;
        }
        ++landed;
        REQUIRE(machine.sha256_of_point((*point)["id"]) == hash);
    }
    INFO(refused << " refused");
    REQUIRE(landed == 3);
}
