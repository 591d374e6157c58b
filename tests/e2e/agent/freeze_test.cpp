// SPDX-License-Identifier: Apache-2.0
// Freezes on real filesystems on loop devices, with the real guardian as a process of its own.
#include "user/agent/freeze.h"

#include <poll.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <atomic>
#include <csignal>
#include <iostream>
#include <optional>
#include <thread>

#include "tests/catch.hpp"
#include "tests/e2e/loop_disk.h"
#include "user/agent/guardian_wire.h"
#include "user/agent/unix_socket.h"

using namespace herald;
using namespace herald::agent;
using namespace herald::test;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

namespace {

#define NEEDS_LOOP_DISKS()                                                \
    if (const std::string why = missing_for_loop_disks(); !why.empty()) { \
        std::cout << "SKIPPED: " << why << "\n";                          \
        return;                                                           \
    }

class GuardianProcess {
  public:
    explicit GuardianProcess(const std::filesystem::path& socket) {
        const std::string program = HERALD_BIN_DIR "/herald-guardian";
        const char* argv[] = {program.c_str(), "--socket", socket.c_str(), nullptr};
        REQUIRE(::posix_spawn(&pid_, program.c_str(), nullptr, nullptr,
                              const_cast<char* const*>(argv), environ) == 0);
        const Freezer freezer(socket);
        for (int i = 0; i < 200 && !freezer.probe(); ++i) std::this_thread::sleep_for(20ms);
        REQUIRE(freezer.probe());
    }
    GuardianProcess(const GuardianProcess&) = delete;
    GuardianProcess& operator=(const GuardianProcess&) = delete;
    ~GuardianProcess() { end(SIGTERM); }
    void end(int signal) {
        if (pid_ <= 0) return;
        ::kill(pid_, signal);
        ::waitpid(pid_, nullptr, 0);
        pid_ = -1;
    }

  private:
    pid_t pid_ = -1;
};

// Writes and syncs a file again and again; count() stands still while its filesystem is frozen.
class Writer {
  public:
    explicit Writer(const std::filesystem::path& dir)
        : fd_(*open_file(dir / "written", O_RDWR | O_CREAT)), thread_([this] { run(); }) {}
    Writer(const Writer&) = delete;
    Writer& operator=(const Writer&) = delete;
    ~Writer() {
        stop_ = true;
        thread_.join();
    }
    uint64_t count() const { return count_; }
    // Time until a write completes, counted from now; 10 s is for ever.
    std::chrono::nanoseconds until_next_write() const {
        const auto start = Clock::now();
        const uint64_t before = count_;
        while (count_ == before && Clock::now() - start < 10s) std::this_thread::sleep_for(1ms);
        return Clock::now() - start;
    }

  private:
    void run() {
        while (!stop_) {
            const uint64_t value = count_;
            if (::pwrite(fd_.get(), &value, sizeof value, 0) != sizeof value) break;
            if (::fsync(fd_.get()) != 0) break;
            ++count_;
            std::this_thread::sleep_for(1ms);
        }
    }
    Fd fd_;
    std::atomic<bool> stop_{false};
    std::atomic<uint64_t> count_{0};
    std::thread thread_;
};

// One write may have been past the freeze's gate: after it nothing moves.
bool stands_still(const Writer& writer) {
    std::this_thread::sleep_for(30ms);
    const uint64_t before = writer.count();
    std::this_thread::sleep_for(150ms);
    return writer.count() == before;
}

std::vector<MountedFilesystem> filesystems_on(const LoopDisk& disk) {
    auto identity = identify(disk.device());
    REQUIRE(identity);
    auto use = find_use(*identity);
    REQUIRE(use);
    CHECK(use->unfreezable.empty());
    return use->filesystems;
}

}  // namespace

TEST_CASE("a frozen filesystem takes no writes until it is thawed") {
    NEEDS_LOOP_DISKS();
    const std::string type = GENERATE("ext4", "xfs", "btrfs");
    INFO(type);
    TempDir dir;
    LoopDisk disk(dir.path() / "disk", "400M");
    MountedAt mounted(type, disk.device(), dir.path() / "m");
    GuardianProcess guardian(dir.path() / "guardian.sock");
    Writer writer(mounted.path());
    writer.until_next_write();

    auto filesystems = filesystems_on(disk);
    REQUIRE(filesystems.size() == 1);
    CHECK(filesystems[0].type == type);
    CHECK(filesystems[0].mount_point == mounted.path());
    REQUIRE(sync_filesystems(filesystems));
    auto frozen = Freezer(dir.path() / "guardian.sock").freeze(filesystems, 5s);
    if (!frozen) FAIL(frozen.error().message);
    CHECK(stands_still(writer));
    CHECK_FALSE(sh_ok("fsfreeze --freeze " + mounted.path().native()));
    CHECK(frozen->remaining() > 3s);
    CHECK(frozen->remaining() < 5s);
    const Thawed report = frozen->thaw();
    CHECK_FALSE(report.expired);
    CHECK(report.cause.empty());
    CHECK_FALSE(report.guardian_lost);
    CHECK(report.frozen > 180ms);
    CHECK(report.frozen < 3s);
    CHECK(writer.until_next_write() < 1s);
}

TEST_CASE("two partitions, a bind mount and a subvolume: each superblock is frozen once") {
    NEEDS_LOOP_DISKS();
    TempDir dir;
    LoopDisk disk(dir.path() / "disk", "800M");
    const std::string first = disk.add_partition(1, 300), second = disk.add_partition(301, 400);
    MountedAt one("ext4", first, dir.path() / "one");
    MountedAt two("btrfs", second, dir.path() / "two");
    MountedAt again(one.path(), dir.path() / "again");
    sh("btrfs subvolume create " + (two.path() / "sub").native());
    MountedAt sub(two.path() / "sub", dir.path() / "sub");
    GuardianProcess guardian(dir.path() / "guardian.sock");

    auto filesystems = filesystems_on(disk);
    REQUIRE(filesystems.size() == 2);
    for (const auto& filesystem : filesystems) {
        CHECK(filesystem.depth == 0);
        REQUIRE(filesystem.extents.size() == 1);
        const bool is_first = filesystem.type == "ext4";
        CHECK(filesystem.extents[0] == (is_first ? ByteRange{1ull << 20, 300ull << 20}
                                                 : ByteRange{301ull << 20, 400ull << 20}));
    }
    Writer through_bind(again.path()), through_subvolume(sub.path());
    through_bind.until_next_write();
    through_subvolume.until_next_write();
    auto frozen = Freezer(dir.path() / "guardian.sock").freeze(filesystems, 5s);
    if (!frozen) FAIL(frozen.error().message);
    CHECK(stands_still(through_bind));
    CHECK(stands_still(through_subvolume));
    CHECK_FALSE(frozen->thaw().expired);
    CHECK(through_bind.until_next_write() < 1s);
    CHECK(through_subvolume.until_next_write() < 1s);
}

TEST_CASE("a filesystem in a file on the disk is frozen before the one that holds the file") {
    NEEDS_LOOP_DISKS();
    TempDir dir;
    LoopDisk disk(dir.path() / "disk", "1G");
    MountedAt outer("ext4", disk.device(), dir.path() / "outer");
    LoopDisk nested(outer.path() / "file", "320M");
    MountedAt inner("xfs", nested.device(), dir.path() / "inner");
    GuardianProcess guardian(dir.path() / "guardian.sock");

    auto filesystems = filesystems_on(disk);
    REQUIRE(filesystems.size() == 2);
    CHECK(filesystems[0].type == "xfs");
    CHECK(filesystems[0].depth == 1);
    CHECK(filesystems[1].type == "ext4");
    CHECK(filesystems[0].extents == filesystems[1].extents);

    auto identity = identify(disk.device());
    REQUIRE(identity);
    for (const auto& path : {inner.path(), inner.path() / "not" / "yet", outer.path() / "x"}) {
        auto on = is_on_disk(path, *identity);
        REQUIRE(on);
        CHECK(*on);
    }
    CHECK_FALSE(*is_on_disk(dir.path(), *identity));
    CHECK_FALSE(*is_on_disk("/proc/self", *identity));

    Writer on_inner(inner.path()), on_outer(outer.path());
    on_inner.until_next_write();
    on_outer.until_next_write();
    for (int i = 0; i < 3; ++i) {
        REQUIRE(sync_filesystems(filesystems));
        auto frozen = Freezer(dir.path() / "guardian.sock").freeze(filesystems, 5s);
        if (!frozen) FAIL(frozen.error().message);
        CHECK(stands_still(on_inner));
        CHECK(stands_still(on_outer));
        const Thawed report = frozen->thaw();
        INFO(report.cause);
        CHECK_FALSE(report.expired);
        CHECK(on_inner.until_next_write() < 1s);
        CHECK(on_outer.until_next_write() < 1s);
    }
}

TEST_CASE("the guardian thaws within a second when the freezing process is killed") {
    NEEDS_LOOP_DISKS();
    TempDir dir;
    LoopDisk disk(dir.path() / "disk", "1G");
    MountedAt outer("ext4", disk.device(), dir.path() / "outer");
    LoopDisk nested(outer.path() / "file", "320M");
    MountedAt inner("xfs", nested.device(), dir.path() / "inner");
    GuardianProcess guardian(dir.path() / "guardian.sock");
    const auto filesystems = filesystems_on(disk);
    REQUIRE(filesystems.size() == 2);

    int told[2];
    REQUIRE(::pipe(told) == 0);
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        auto frozen = Freezer(dir.path() / "guardian.sock").freeze(filesystems, 30s);
        const char result = frozen ? 'y' : 'n';
        (void)!::write(told[1], &result, 1);
        for (;;) ::pause();
    }
    char result = 0;
    REQUIRE(::read(told[0], &result, 1) == 1);
    ::close(told[0]);
    ::close(told[1]);
    REQUIRE(result == 'y');
    {
        // Opened before: creating a file would block. Both filesystems hold still.
        CHECK_FALSE(sh_ok("timeout -s KILL 0.3 fsfreeze --freeze " + inner.path().native()));
    }
    ::kill(child, SIGKILL);
    const auto killed = Clock::now();
    ::waitpid(child, nullptr, 0);
    Writer on_inner(inner.path()), on_outer(outer.path());
    while ((on_inner.count() == 0 || on_outer.count() == 0) && Clock::now() - killed < 10s) {
        std::this_thread::sleep_for(1ms);
    }
    const auto took = Clock::now() - killed;
    // Where the guardian failed, nobody may be left waiting for ever.
    sh_ok("fsfreeze --unfreeze " + outer.path().native());
    sh_ok("fsfreeze --unfreeze " + inner.path().native());
    std::cout << "writers resumed " << std::chrono::duration<double, std::milli>(took).count()
              << " ms after SIGKILL\n";
    CHECK(took < 1s);
}

TEST_CASE("at the deadline the guardian thaws, and the point is refused") {
    NEEDS_LOOP_DISKS();
    TempDir dir;
    LoopDisk disk(dir.path() / "disk", "400M");
    MountedAt mounted("ext4", disk.device(), dir.path() / "m");
    GuardianProcess guardian(dir.path() / "guardian.sock");
    Writer writer(mounted.path());
    writer.until_next_write();
    auto frozen = Freezer(dir.path() / "guardian.sock").freeze(filesystems_on(disk), 1500ms);
    if (!frozen) FAIL(frozen.error().message);
    CHECK(stands_still(writer));
    std::this_thread::sleep_for(1400ms);
    // We are alive and did not thaw: the writer goes on all the same.
    CHECK(writer.until_next_write() < 500ms);
    CHECK(frozen->remaining() <= 0s);
    const Thawed report = frozen->thaw();
    CHECK(report.expired);
    CHECK_FALSE(report.cause.empty());
    // And the filesystem is in nobody's hands.
    REQUIRE(sh_ok("fsfreeze --freeze " + mounted.path().native()));
    REQUIRE(sh_ok("fsfreeze --unfreeze " + mounted.path().native()));
}

TEST_CASE("without a guardian nothing is frozen, and the error says what to start") {
    NEEDS_LOOP_DISKS();
    TempDir dir;
    LoopDisk disk(dir.path() / "disk", "400M");
    MountedAt mounted("ext4", disk.device(), dir.path() / "m");
    const Freezer freezer(dir.path() / "nobody.sock");
    auto frozen = freezer.freeze(filesystems_on(disk), 5s);
    REQUIRE_FALSE(frozen);
    CHECK(frozen.error().message.find("systemctl start herald-guardian") != std::string::npos);
    CHECK_FALSE(freezer.probe());
    // Nothing to freeze needs no guardian.
    auto nothing = freezer.freeze({}, 5s);
    REQUIRE(nothing);
    CHECK_FALSE(nothing->thaw().expired);
}

TEST_CASE("what another program froze is refused by name and left frozen, the rest thawed") {
    NEEDS_LOOP_DISKS();
    TempDir dir;
    LoopDisk disk(dir.path() / "disk", "800M");
    const std::string first = disk.add_partition(1, 300), second = disk.add_partition(301, 400);
    MountedAt one("ext4", first, dir.path() / "one");
    MountedAt two("xfs", second, dir.path() / "two");
    GuardianProcess guardian(dir.path() / "guardian.sock");
    const auto filesystems = filesystems_on(disk);
    REQUIRE(filesystems.size() == 2);
    sh("fsfreeze --freeze " + filesystems[1].mount_point);
    auto frozen = Freezer(dir.path() / "guardian.sock").freeze(filesystems, 5s);
    const bool theirs_still_frozen = sh_ok("fsfreeze --unfreeze " + filesystems[1].mount_point);
    CHECK(theirs_still_frozen);
    REQUIRE_FALSE(frozen);
    CHECK(frozen.error().message.find(filesystems[1].mount_point) != std::string::npos);
    CHECK(frozen.error().kind == ErrorKind::retry);
    Writer writer(filesystems[0].mount_point);
    CHECK(writer.until_next_write() < 1s);
}

TEST_CASE("a thaw by somebody else in between is noticed: the point is refused") {
    NEEDS_LOOP_DISKS();
    TempDir dir;
    LoopDisk disk(dir.path() / "disk", "400M");
    MountedAt mounted("ext4", disk.device(), dir.path() / "m");
    GuardianProcess guardian(dir.path() / "guardian.sock");
    auto frozen = Freezer(dir.path() / "guardian.sock").freeze(filesystems_on(disk), 5s);
    REQUIRE(frozen);
    sh("fsfreeze --unfreeze " + mounted.path().native());
    const Thawed report = frozen->thaw();
    CHECK(report.expired);
    CHECK(report.cause.find(mounted.path().native()) != std::string::npos);
}

TEST_CASE("a guardian that dies while we are frozen is reported; the point is still good") {
    NEEDS_LOOP_DISKS();
    TempDir dir;
    LoopDisk disk(dir.path() / "disk", "400M");
    MountedAt mounted("ext4", disk.device(), dir.path() / "m");
    GuardianProcess guardian(dir.path() / "guardian.sock");
    Writer writer(mounted.path());
    writer.until_next_write();
    auto frozen = Freezer(dir.path() / "guardian.sock").freeze(filesystems_on(disk), 5s);
    REQUIRE(frozen);
    guardian.end(SIGKILL);
    CHECK(stands_still(writer));
    const Thawed report = frozen->thaw();
    CHECK(report.guardian_lost);
    CHECK_FALSE(report.expired);
    CHECK(writer.until_next_write() < 1s);
}

// Guards nothing: it answers to arm and probe, and is gone without a thaw, as one that is killed.
class FalseGuardian {
  public:
    explicit FalseGuardian(const std::filesystem::path& socket)
        : listener_(*listen_unix(socket, SOCK_SEQPACKET, 1)), thread_([this] { run(); }) {}
    FalseGuardian(const FalseGuardian&) = delete;
    FalseGuardian& operator=(const FalseGuardian&) = delete;
    ~FalseGuardian() { thread_.join(); }

  private:
    void run() {
        wait_for(listener_.get(), POLLIN, Clock::now() + 10s);
        const Fd connection(::accept(listener_.get(), nullptr, nullptr));
        GuardianRequest_wire request{};
        while (::recv(connection.get(), &request, sizeof request, 0) > 0) {
            const GuardianReply_wire reply{kGuardianMagic, kGuardianVersion, 0, 0, 0};
            (void)::send(connection.get(), &reply, sizeof reply, MSG_NOSIGNAL);
        }
    }
    Fd listener_;
    std::thread thread_;
};

TEST_CASE("a freeze that is left to the guardian is over at once, and if it dies meanwhile, too") {
    NEEDS_LOOP_DISKS();
    TempDir dir;
    LoopDisk disk(dir.path() / "disk", "400M");
    MountedAt mounted("ext4", disk.device(), dir.path() / "m");
    const auto socket = dir.path() / "guardian.sock";
    std::optional<GuardianProcess> guardian;
    std::optional<FalseGuardian> false_guardian;
    SECTION("it thaws") { guardian.emplace(socket); }
    SECTION("it is killed after its answer") { false_guardian.emplace(socket); }
    Writer writer(mounted.path());
    writer.until_next_write();
    auto frozen = Freezer(socket).freeze(filesystems_on(disk), 5s);
    REQUIRE(frozen);
    CHECK(stands_still(writer));
    frozen->leave_to_guardian();
    const bool over = writer.until_next_write() < 1s;
    // A writer that is frozen for ever would hold up the end of this test.
    if (!over) sh_ok("fsfreeze --unfreeze " + mounted.path().native());
    CHECK(over);
}

TEST_CASE("a guardian that is stopped while we are frozen thaws, and the point is refused") {
    NEEDS_LOOP_DISKS();
    TempDir dir;
    LoopDisk disk(dir.path() / "disk", "400M");
    MountedAt mounted("ext4", disk.device(), dir.path() / "m");
    GuardianProcess guardian(dir.path() / "guardian.sock");
    auto frozen = Freezer(dir.path() / "guardian.sock").freeze(filesystems_on(disk), 5s);
    REQUIRE(frozen);
    guardian.end(SIGTERM);
    CHECK(frozen->thaw().expired);
}
