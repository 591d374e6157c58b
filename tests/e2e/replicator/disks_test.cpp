// SPDX-License-Identifier: Apache-2.0
// Which disks the daemon protects as they come, go and change their names, and what it answers
// meanwhile.
#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <unistd.h>

#include <fstream>
#include <iostream>
#include <optional>
#include <thread>

#include "herald/limits.h"
#include "tests/catch.hpp"
#include "tests/e2e/own_loop.h"
#include "tests/e2e/replicator/protected_machine.h"
#include "user/tracker/ebpf_tracker.h"

using namespace herald;
using namespace herald::test;
using namespace std::chrono_literals;

namespace {

// A loop device with a chosen file under it, detached at the end.
struct Attached {
    Attached(const std::filesystem::path& file, const std::string& at = "") {
        device = at.empty() ? sh("losetup --find --show " + file.native()) : at;
        if (!at.empty()) sh("losetup " + at + " " + file.native());
    }
    ~Attached() { sh_ok("losetup --detach " + device); }
    std::string device;
};

// A filesystem whose daemon never answers: stat() of what is in it does not return before the end.
class HungFolder {
  public:
    explicit HungFolder(const char* in = "/tmp")
        : dir_(std::string(in) + "/herald-hung-XXXXXX"),
          fuse_(::open("/dev/fuse", O_RDWR | O_CLOEXEC)) {
        REQUIRE(fuse_);
        REQUIRE(::mkdtemp(dir_.data()));
        const auto options = fmt::format("fd={},rootmode=40000,user_id=0,group_id=0", fuse_.get());
        REQUIRE(::mount("hung", dir_.c_str(), "fuse", MS_NOSUID | MS_NODEV, options.c_str()) == 0);
    }
    HungFolder(const HungFolder&) = delete;
    HungFolder& operator=(const HungFolder&) = delete;
    ~HungFolder() {
        ::umount2(dir_.c_str(), MNT_FORCE | MNT_DETACH);
        ::rmdir(dir_.c_str());
    }
    std::string disk() const { return dir_ + "/disk"; }

  private:
    std::string dir_;
    Fd fuse_;
};

// The path under which a disk is protected, or nothing.
std::string path_of(const nlohmann::json& list, const std::string& identity) {
    for (const auto& disk : list["disks"]) {
        if (disk["identity"] == identity) return disk["path"];
    }
    return {};
}

}  // namespace

TEST_CASE("a chosen disk is found again under another name, and can be let go while it is away") {
    NEEDS_PROTECTED_MACHINE();
    ProtectedMachine machine("16M");
    TempDir dir;
    const auto file = dir.path() / "chosen", filler = dir.path() / "filler";
    for (const auto& path : {file, filler}) sh("truncate -s 8M " + path.native());
    const std::string identity = "loop:" + file.native();
    machine.start();
    const OwnLoop own;
    const std::string before = own.path().native();
    {
        Attached chosen(file, before);
        machine.ask({{"op", "protect"}, {"path", before}});
        machine.kill();
    }
    Attached other(filler, before);  // its name belongs to another disk now
    machine.start();
    // The machine's own disk is missing, too, until it was looked at.
    const auto one_is_missing = [&](const auto& now) {
        const auto& missing = now["missing"];
        return missing.size() == 1 && missing[0]["path"] != machine.disk().device();
    };
    auto list = machine.wait_for({{"op", "list"}}, one_is_missing);
    REQUIRE(list["missing"][0]["path"] == before);
    REQUIRE(path_of(list, "loop:" + filler.native()).empty());
    {
        Attached again(file);
        REQUIRE(again.device != before);
        // Protected first, then written down, then no longer missing.
        list = machine.wait_for({{"op", "list"}}, [&](const auto& now) {
            return !path_of(now, identity).empty() && now["missing"].empty();
        });
        REQUIRE(path_of(list, identity) == again.device);
        machine.kill();
    }
    machine.start();
    list = machine.wait_for({{"op", "list"}}, one_is_missing);
    const std::string away = list["missing"][0]["path"];
    auto let_go = machine.try_ask({{"op", "unprotect"}, {"disk", away}});
    INFO((let_go ? "" : let_go.error().message));
    REQUIRE(let_go);
    REQUIRE(machine.ask({{"op", "list"}})["missing"].empty());
}

TEST_CASE(
    "a second device with the identity of a protected disk is refused, not passed off as it") {
    NEEDS_PROTECTED_MACHINE();
    ProtectedMachine machine("16M");
    machine.start();
    machine.ask({{"op", "status"}, {"disk", machine.disk().device()}});
    Attached copy(machine.disk().file());
    auto answer = machine.try_ask({{"op", "protect"}, {"path", copy.device}});
    REQUIRE_FALSE(answer);
    REQUIRE(answer.error().message.find(machine.disk().device()) != std::string::npos);
}

TEST_CASE("a scheduled point is due when the last one is that old, not at each start") {
    NEEDS_PROTECTED_MACHINE();
    ProtectedMachine machine("16M", "[points]\nevery_s = 3600\n");
    const auto last_point = [&] { return machine.status()["last_point"]; };
    machine.start();
    for (int i = 0; i < 600 && last_point().is_null(); ++i) std::this_thread::sleep_for(50ms);
    const auto first = last_point();
    REQUIRE(first.is_object());
    std::this_thread::sleep_for(300ms);  // until it is written down
    machine.kill();
    machine.start();
    machine.wait_clean();
    std::this_thread::sleep_for(1s);
    REQUIRE(last_point()["id"] == first["id"]);
}

TEST_CASE("a disk that ends within a block and a page is exact to its last sector") {
    NEEDS_PROTECTED_MACHINE();
    constexpr uint64_t kSectors = (10u << 20) / 512 + 3;
    ProtectedMachine machine(std::to_string(kSectors * 512));
    machine.start();
    machine.wait_clean();
    const auto write = [&](uint64_t sector, const char* how) {
        sh(fmt::format(
            "dd if=/dev/urandom of={} bs=512 count=1 seek={} {} conv=notrunc status=none",
            machine.disk().device(), sector, how));
    };
    write(kSectors - 1, "oflag=direct");
    write(5, "");  // buffered, not synchronised: in the device's page cache
    auto point = machine.tag("tail");
    INFO((point ? "" : point.error().message));
    REQUIRE(point);
    REQUIRE(machine.sha256_of_point((*point)["id"]) == machine.sha256_of_disk());
    // All of it zero again: the last block is a short block of zeroes, also for the digests.
    sh("dd if=/dev/zero of=" + machine.disk().device() +
       " bs=1M oflag=direct status=none 2>/dev/null || true");
    point = machine.tag("zero");
    REQUIRE(point);
    machine.wait_clean();
    const uint64_t sent = machine.status()["raw_bytes"];
    const uint64_t epoch = machine.status()["epoch"];
    machine.ask({{"op", "resync"}, {"disk", machine.disk().device()}, {"how", "digest"}});
    machine.wait_for({{"op", "status"}, {"disk", machine.disk().device()}},
                     [&](const nlohmann::json& now) { return now["epoch"] > epoch; });
    machine.wait_clean();
    CHECK(machine.status()["raw_bytes"].get<uint64_t>() - sent < 4096);
    REQUIRE(machine.sha256_of_point((*point)["id"]) == machine.sha256_of_disk());
}

TEST_CASE("terminated during a hold, it thaws soon, refuses the point and ends well") {
    NEEDS_PROTECTED_MACHINE();
    ProtectedMachine machine("64M");
    MountedAt mounted("ext4", machine.disk().device(), machine.site().dir() / "mnt");
    machine.start();
    machine.wait_clean();
    std::chrono::steady_clock::time_point asked;
    int64_t waited_ms = -1;
    auto point = machine.tag("held", [&] {
        asked = std::chrono::steady_clock::now();
        machine.replicator().signal(SIGTERM);
        sh("touch " + (mounted.path() / "file").native());  // waits for the thaw
        waited_ms = std::chrono::duration_cast<std::chrono::milliseconds>(
                        std::chrono::steady_clock::now() - asked)
                        .count();
    });
    CHECK_FALSE(point);
    CHECK(waited_ms < 3000);
    const auto end = machine.replicator().wait(20s);
    REQUIRE(end);
    REQUIRE(end->status == 0);
}

TEST_CASE("points that nobody waits for any more do not hold the control socket") {
    NEEDS_PROTECTED_MACHINE();
    ProtectedMachine machine("16M");
    machine.site().server().signal(SIGSTOP);  // no session is granted, so no point is taken
    machine.start();
    machine.wait_for({{"op", "list"}}, [](const auto& list) { return !list["disks"].empty(); });
    constexpr unsigned kAtOnce = HERALD_CONTROL_CONNECTIONS_MAX;
    const nlohmann::json request{{"op", "tag"}, {"disk", machine.disk().device()}, {"name", "p"}};
    // A connection that was closed is noticed within a moment, one that is held would stay for
    // ever.
    const auto soon = [](const auto& succeeds) {
        for (int i = 0; i < 200; ++i) {
            if (succeeds()) return true;
            std::this_thread::sleep_for(50ms);
        }
        return false;
    };
    for (unsigned i = 0; i < 3 * kAtOnce; ++i) {
        REQUIRE(soon([&] {
            auto client = agent::ControlClient::connect(machine.site().dir() / "run/r.sock");
            return client && client->send(request);
        }));
        if (i % kAtOnce != kAtOnce - 1) continue;
        CHECK(soon([&] { return machine.try_ask({{"op", "list"}}).has_value(); }));
    }
    // Nor do they heap up where nobody takes them out.
    const auto waiting = machine.status()["points_waiting"].get<unsigned>();
    CHECK(waiting > 0);
    CHECK(waiting <= kAtOnce);
    machine.site().server().signal(SIGCONT);
}

TEST_CASE("a disk plugged in again under another name is found while the replicator runs") {
    NEEDS_PROTECTED_MACHINE();
    ProtectedMachine machine("16M");
    TempDir dir;
    const auto file = dir.path() / "moved", filler = dir.path() / "filler";
    for (const auto& path : {file, filler}) sh("truncate -s 8M " + path.native());
    machine.start();
    const OwnLoop own;
    const std::string before = own.path().native();
    std::optional<Attached> first(std::in_place, file, before);
    const auto chosen = machine.ask({{"op", "protect"}, {"path", before}})["disk"];
    const nlohmann::json status{{"op", "status"}, {"disk", chosen["disk"]}};
    const auto is_protected = [](const auto& disk) { return disk["state"] == "protected"; };
    machine.wait_for(status, is_protected);
    machine.kill();
    // While somebody else holds the tracker the replicator does not have the device open, so that
    // it can be taken away, and tries again and again.
    tracker::EbpfOptions options;
    options.bpf_dir = machine.bpf_dir();
    options.state_dir = machine.state_dir();
    options.device = before;
    options.disk = *Uuid::parse(chosen["disk"].get<std::string>());
    auto held = tracker::EbpfTracker::attach(options);
    INFO((held ? "" : held.error().message));
    REQUIRE(held);
    machine.start();
    machine.wait_for({{"op", "list"}}, [](const auto& list) { return list["disks"].size() == 2; });
    machine.wait_for(status, [](const auto& disk) {
        return disk["cause"].template get<std::string>().find("another process") !=
               std::string::npos;
    });
    first.reset();
    Attached other(filler, before), again(file);
    REQUIRE(again.device != before);
    held->reset();
    const auto now = machine.wait_for(status, is_protected);
    CHECK(now["path"] == again.device);
    CHECK(now["gap"].get<std::string>().find("attached again") != std::string::npos);
    // The old name is another disk's.
    CHECK_FALSE(machine.try_ask({{"op", "status"}, {"disk", before}}));
}

TEST_CASE("a look at a disk that never returns holds up neither the others nor the end") {
    NEEDS_PROTECTED_MACHINE();
    // Its path comes behind that of the disk, /dev/loopN, and before it.
    for (const char* in : {"/tmp", "/dev"}) {
        INFO(in);
        const HungFolder hung(in);
        ProtectedMachine machine("16M", "\n[[disk]]\npath = \"" + hung.disk() + "\"\n");
        machine.start();
        machine.wait_clean();
        machine.replicator().signal(SIGTERM);
        const auto end = machine.replicator().wait(20s);
        REQUIRE(end);
        CHECK(end->status == 0);
    }
}

TEST_CASE("a request that looks at a disk that never answers does not hold up the end") {
    NEEDS_PROTECTED_MACHINE();
    const HungFolder hung;
    ProtectedMachine machine("16M");
    machine.start();
    machine.wait_clean();
    auto client = agent::ControlClient::connect(machine.site().dir() / "run/r.sock");
    REQUIRE(client);
    REQUIRE(client->send({{"op", "protect"}, {"path", hung.disk()}}));
    std::this_thread::sleep_for(300ms);
    machine.replicator().signal(SIGTERM);
    const auto end = machine.replicator().wait(20s);
    REQUIRE(end);
    CHECK(end->status == 0);
}

TEST_CASE("a missing disk that is unprotected while it is looked for is not protected after all") {
    NEEDS_PROTECTED_MACHINE();
    std::optional<HungFolder> hung(std::in_place);
    ProtectedMachine machine("16M");
    TempDir dir;
    const auto file = dir.path() / "chosen";
    sh("truncate -s 8M " + file.native());
    const Attached chosen(file);
    const std::string identity = "loop:" + file.native(), path = hung->disk();
    std::filesystem::create_directories(machine.state_dir());
    std::ofstream(machine.state_dir() / "disks.json")
        << nlohmann::json{{"disks", {{{"identity", identity}, {"path", path}}}}};
    machine.start();
    machine.wait_for({{"op", "list"}}, [&](const auto& now) { return now["missing"].size() == 1; });
    std::this_thread::sleep_for(500ms);  // the look is under way
    auto let_go = machine.try_ask({{"op", "unprotect"}, {"disk", path}});
    INFO((let_go ? "" : let_go.error().message));
    CHECK(let_go);
    hung.reset();  // the look returns: not there, but the same disk is there under another name
    std::this_thread::sleep_for(2s);
    const auto list = machine.ask({{"op", "list"}});
    CHECK(path_of(list, identity).empty());
    CHECK(list["missing"].empty());
    std::ifstream remembered(machine.state_dir() / "disks.json");
    CHECK(nlohmann::json::parse(remembered)["disks"][0]["protect"] == false);
}

TEST_CASE(
    "what is left of a disk that was unprotected before a kill is removed at the next start") {
    NEEDS_PROTECTED_MACHINE();
    ProtectedMachine machine("16M");
    machine.start();
    machine.wait_clean();
    const auto before = machine.status();
    const auto pins = machine.bpf_dir() / before["disk"].get<std::string>();
    REQUIRE(std::filesystem::exists(pins));
    machine.kill();
    // As it is between the choice and the removal.
    std::ofstream(machine.state_dir() / "disks.json") << nlohmann::json{
        {"disks",
         {{{"identity", before["identity"]}, {"path", before["path"]}, {"protect", false}}}}};
    machine.start();
    machine.wait_for(
        {{"op", "list"}}, [&](const auto&) { return !std::filesystem::exists(pins); }, 20s);
    // And it can be protected anew.
    machine.ask({{"op", "protect"}, {"path", machine.disk().device()}});
    machine.wait_clean();
    REQUIRE(std::filesystem::exists(pins));
}
