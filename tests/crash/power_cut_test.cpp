// SPDX-License-Identifier: Apache-2.0
// acked_is_kept across a power cut of the server: a child process runs the service on scratch
// filesystems while clients upload; at a random moment the filesystems lose everything that was not
// synced and the child is killed. After the journal's replay all that was acknowledged must be
// there, nothing else, and the clients go on. Several lives on the same filesystems make a round.
#include <poll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <functional>
#include <random>
#include <thread>

#include "tests/crash/cut_filesystem.h"
#include "tests/service_fixture.h"
#include "user/vault/restore.h"
#include "user/vault/restore_target.h"
#include "user/vault/sqlite.h"

using namespace herald;
using test::outcome_of;

namespace {

constexpr uint64_t kDisk = 2 * HERALD_BLOCK_BYTES;
constexpr int kDisks = 3;
constexpr int kLives = 3;
constexpr int kSegmentsPerLife = 10;
constexpr int kSendersPerDisk = 2;

using Random = std::mt19937;
int below(Random& random, int end) {
    return std::uniform_int_distribution<int>(0, end - 1)(random);
}

// What the child says through the pipe, each as one write.
struct Said {
    enum What : uint64_t { opened, granted, stored, refused, finished } what;
    uint64_t disk = 0;
    uint64_t value = 0;  // an epoch, a position, a status
};

// One protected disk and all that was ever sent of it.
struct Source {
    struct Sent {
        hrl::Segment segment;
        test::StreamBuilder after;
    };
    Uuid machine = Uuid::random();
    Uuid disk = Uuid::random();
    Uuid session;
    bool new_session = true;
    std::vector<Sent> plan;  // of this life, in order
    std::map<Uuid, Sent> sent;
    uint64_t granted = 0;
    uint64_t acked = 0;

    // From what the server has: a new session, or more of the one under way.
    void make_plan(const vault::DiskRow& row, bool fresh, Random& random) {
        new_session = fresh;
        if (fresh) session = Uuid::random();
        const uint64_t epoch = row.epoch + (fresh ? 1 : 0);
        test::StreamBuilder stream(machine, disk, kDisk, epoch);
        if (row.head > 0) {
            stream = sent.at(row.head_segment).after;
            stream.new_epoch(epoch, row.head, row.head_segment);
        }
        plan.clear();
        for (int i = 0; i < kSegmentsPerLife; ++i) {
            if (i == 0 && (fresh || row.head == 0)) stream.activation();
            stream.scan_begin(i + 1);
            for (int blocks = 1 + below(random, 3); blocks > 0; --blocks) {
                Bytes bytes(HERALD_BLOCK_BYTES);
                for (auto& byte : bytes) byte = std::byte(random());
                stream.write(below(random, 2) * HERALD_BLOCK_BYTES, bytes);
            }
            stream.scan_end(i + 1).tag("point");
            hrl::Segment segment = stream.segment();
            plan.push_back({segment, stream});
            sent.insert_or_assign(segment.header.segment, plan.back());
        }
    }
};

struct Site {
    std::filesystem::path store;
    std::filesystem::path catalog;
    std::vector<Source> sources{kDisks};
};

void say(int pipe, Said said) {
    if (::write(pipe, &said, sizeof said) != sizeof said) ::_exit(9);
}

// Sends every kSendersPerDisk-th segment, so that they arrive out of order and at once.
void send_some(test::ServiceFixture& server, const Source& source, size_t number, int from,
               int pipe) {
    for (size_t i = from; i < source.plan.size(); i += kSendersPerDisk) {
        for (;;) {
            auto response = server.put(source.plan[i].segment);
            auto ack = wire::decode_segment_ack(as_text(response.body));
            if (response.status == 200 && ack) {
                say(pipe, {Said::stored, number, ack->stored});
                break;
            }
            // Once the power is cut everything fails; until then nothing is refused.
            if (response.status < 500) say(pipe, {Said::refused, number, response.status});
            ::usleep(1000);
        }
    }
}

// In the child: serves this life's plans until killed.
[[noreturn]] void serve(const Site& site, int pipe) {
    test::ServiceFixture server(site.store, site.catalog);
    if (server.open()) {
        say(pipe, {Said::opened});
        for (size_t i = 0; i < site.sources.size(); ++i) {
            const Source& source = site.sources[i];
            if (!source.new_session) continue;
            while (server.ask_session(source.machine, source.disk, source.session, kDisk).status !=
                   200) {
                ::usleep(1000);
            }
            say(pipe, {Said::granted, i, source.plan.front().segment.header.epoch});
        }
        std::vector<std::thread> senders;
        for (size_t i = 0; i < site.sources.size(); ++i) {
            for (int from = 0; from < kSendersPerDisk; ++from) {
                senders.emplace_back(
                    [&, i, from] { send_some(server, site.sources[i], i, from, pipe); });
            }
        }
        for (std::thread& sender : senders) sender.join();
        say(pipe, {Said::finished});
    }
    for (;;) ::pause();
}

// False: nothing more was said in the time.
bool listen(int pipe, int timeout_ms, Site& site, Said& said) {
    struct pollfd ready {
        pipe, POLLIN, 0
    };
    if (::poll(&ready, 1, timeout_ms) <= 0 || ::read(pipe, &said, sizeof said) != sizeof said) {
        return false;
    }
    if (said.what == Said::granted) site.sources[said.disk].granted = said.value;
    if (said.what == Said::stored) {
        auto& acked = site.sources[said.disk].acked;
        acked = std::max(acked, said.value);
    }
    if (said.what == Said::refused) FAIL_CHECK("a segment was refused with " << said.value);
    return true;
}

// Runs the server until the cut, which comes at a random place of its life.
void live_until_cut(Site& site, std::vector<test::CutFilesystem*> power, Random& random) {
    int pipe[2];
    REQUIRE(::pipe2(pipe, O_CLOEXEC) == 0);
    const pid_t child = ::fork();
    if (child == 0) serve(site, pipe[1]);
    ::close(pipe[1]);
    Said said{};
    const bool at_start = below(random, 10) == 0;
    const int count = at_start ? 0 : below(random, 2 + kDisks * (1 + kSegmentsPerLife));
    for (int heard = 0; heard < count && listen(pipe[0], 60000, site, said); ++heard) {
        if (said.what == Said::finished) break;
    }
    ::usleep(below(random, at_start ? 30000 : 4000));
    // What is said from here on never left the machine. (It proves nothing either: an fsync that
    // runs while ext4 shuts down may return success for what is lost.)
    while (listen(pipe[0], 0, site, said)) {
    }
    // One power cut; which of the two loses it first must not matter.
    std::shuffle(power.begin(), power.end(), random);
    for (test::CutFilesystem* filesystem : power) filesystem->cut();
    ::kill(child, SIGKILL);
    REQUIRE(::waitpid(child, nullptr, 0) == child);
    ::close(pipe[0]);
}

void check_image(test::ServiceFixture& server, const Source& source, const vault::DiskRow& row) {
    test::TempDir dir;
    auto target = vault::open_restore_target(dir.path() / "image", kDisk, false);
    REQUIRE(target);
    auto provider = vault::local_provider(server.catalog(), server.store());
    auto restored =
        vault::restore(*provider, {source.disk, row.head, kDisk, target->fd.get(), "image"});
    if (!restored) FAIL(restored.error().message);
    CHECK(*read_file(dir.path() / "image", kDisk) ==
          source.sent.at(row.head_segment).after.image());
}

void check_after(test::ServiceFixture& server, const Site& site) {
    size_t rows_in_all = 0;
    for (const Source& source : site.sources) {
        auto row = server.catalog().disk(source.disk);
        REQUIRE(row);
        CHECK((*row ? (*row)->epoch : 0) >= source.granted);
        CHECK((*row ? (*row)->head : 0) >= source.acked);
        auto rows = server.catalog().segments(source.disk, 0, 1000);
        REQUIRE(rows);
        rows_in_all += rows->size();
        for (const vault::SegmentRow& segment : *rows) {
            auto bytes = server.store().get(segment.object, 0, segment.bytes);
            if (!bytes) FAIL_CHECK(bytes.error().message);
            CHECK((bytes && *bytes == source.sent.at(segment.segment).segment.bytes));
        }
        if (rows->empty()) continue;
        CHECK((*row)->segments == rows->size());
        auto refused = server.catalog().refused_tags(source.disk, 1);
        REQUIRE(refused);
        if (!refused->empty()) FAIL_CHECK(refused->front().refusal);
        CHECK(server.catalog().points(source.disk)->size() == rows->size());
        check_image(server, source, **row);
    }
    // What was put and not committed is gone; so is what was half written.
    CHECK(server.objects() == rows_in_all);
    CHECK(std::filesystem::is_empty(site.store / "temporary"));
}

void check_integrity(const std::filesystem::path& catalog) {
    auto database = vault::Database::open(catalog);
    REQUIRE(database);
    auto query = database->prepare("PRAGMA integrity_check");
    auto row = query.step();
    if (!row) FAIL(row.error().message);
    CHECK(query.text(0) == "ok");
}

void plan_next_life(test::ServiceFixture& server, Site& site, Random& random) {
    for (Source& source : site.sources) {
        auto row = server.catalog().disk(source.disk);
        REQUIRE(row);
        const bool granted = *row && (*row)->session == source.session;
        source.make_plan(*row ? **row : vault::DiskRow(), !granted || below(random, 3) == 0,
                         random);
    }
}

// The client goes on, with nothing in its way.
void check_continues(test::ServiceFixture& server, Site& site, Random& random) {
    plan_next_life(server, site, random);
    for (const Source& source : site.sources) {
        if (source.new_session) {
            REQUIRE(server.ask_session(source.machine, source.disk, source.session, kDisk).status ==
                    200);
        }
        for (const auto& sent : source.plan) {
            CHECK(outcome_of(server.put(sent.segment)) ==
                  "stored " + std::to_string(sent.segment.last_position));
        }
    }
    check_after(server, site);
}

void run_round(const std::string& type, bool apart, Random& random) {
    test::TempDir work;
    test::CutFilesystem first(type, work.path(), "first");
    std::vector<test::CutFilesystem*> power{&first};
    std::optional<test::CutFilesystem> second;
    // On one filesystem the catalog's syncs also carry what the store forgot to sync.
    if (apart) power.push_back(&second.emplace(type, work.path(), "second"));
    Site site;
    site.store = first.path() / "lib" / "herald" / "store";
    site.catalog = power.back()->path() / "lib" / "catalog" / "catalog.sqlite";
    for (Source& source : site.sources) source.make_plan({}, true, random);
    for (int life = 0; life < kLives; ++life) {
        CAPTURE(life);
        live_until_cut(site, power, random);
        for (test::CutFilesystem* filesystem : power) filesystem->power_on();
        test::ServiceFixture server(site.store, site.catalog);
        auto opened = server.open();
        if (!opened) FAIL(opened.error().message);
        server.close();
        check_integrity(site.catalog);
        REQUIRE(server.open());
        check_after(server, site);
        if (life + 1 == kLives) {
            check_continues(server, site, random);
        } else {
            plan_next_life(server, site, random);
        }
    }
}

int rounds() {
    const char* tier = std::getenv("HERALD_TIER");
    const std::string name = tier ? tier : "check";
    return name == "nightly" ? 200 : name == "ci" ? 40 : 8;
}

}  // namespace

// Called once, right before a folder's fsync(2) reaches the kernel.
static std::function<void()> before_folder_sync;

extern "C" int fsync(int fd) {
    struct stat st {};
    if (before_folder_sync && ::fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)) {
        std::exchange(before_folder_sync, nullptr)();
    }
    return int(::syscall(SYS_fsync, fd));
}

TEST_CASE("a power cut at any moment loses nothing that the server acknowledged") {
    if (const std::string missing = test::missing_for_loop_disks(); !missing.empty()) {
        std::printf("SKIPPED: %s: a filesystem on a loop device is needed\n", missing.c_str());
        return;
    }
    const char* given = std::getenv("HERALD_SEED");
    const unsigned seed =
        given ? unsigned(std::strtoul(given, nullptr, 0)) : std::random_device{}();
    std::printf("seed %u (repeat with HERALD_SEED=%u)\n", seed, seed);
    for (int round = 0; round < rounds(); ++round) {
        // Each round has its own: one that fails needs not all before it to be repeated.
        Random random(seed + unsigned(round));
        const std::string type = round % 8 == 7 ? "xfs" : "ext4";
        const bool apart = round % 2 == 1;
        CAPTURE(seed, round, type, apart);
        run_round(type, apart, random);
    }
}

TEST_CASE(
    "a file system that gives up just before an object's name is synced acknowledges nothing") {
    if (const std::string missing = test::missing_for_loop_disks(); !missing.empty()) {
        std::printf("SKIPPED: %s: a filesystem on a loop device is needed\n", missing.c_str());
        return;
    }
    for (const std::string type : {"xfs", "ext4"}) {
        CAPTURE(type);
        test::TempDir work;
        test::CutFilesystem filesystem(type, work.path(), "store");
        {
            auto store = store::open_directory_store(filesystem.path() / "store");
            REQUIRE(store);
            const Bytes bytes(5000, std::byte{7});
            REQUIRE((*store)->put("a/before", bytes));
            before_folder_sync = [&] { filesystem.cut(); };
            auto put = (*store)->put("a/lost", bytes);
            before_folder_sync = nullptr;
            CHECK_FALSE(put);
        }
        filesystem.power_on();
        auto store = store::open_directory_store(filesystem.path() / "store");
        REQUIRE(store);
        CHECK((*store)->stat("a/before"));
        CHECK_FALSE((*store)->stat("a/lost"));
    }
}
