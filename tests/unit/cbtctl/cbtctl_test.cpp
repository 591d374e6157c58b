// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <sys/wait.h>

#include <atomic>
#include <cstdio>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "tests/catch.hpp"
#include "tests/temp_dir.h"
#include "user/agent/control.h"

extern "C" {
#include "kernel/core/layout.h"
}

using namespace herald;
using namespace herald::agent;
using namespace std::chrono_literals;
using nlohmann::json;

namespace {

struct Ran {
    int status = -1;
    std::string out;
    std::string err;
};

std::string slurp(const std::filesystem::path& path) {
    auto bytes = read_file(path, 1 << 20);
    return bytes ? std::string(as_text(*bytes)) : std::string();
}

json disk_status() {
    return {{"disk", "6a2f41a3-c54c-8e0b-8d2a-111122223333"},
            {"path", "/dev/sdb"},
            {"identity", "serial:X1"},
            {"bytes", 1u << 30},
            {"tracker", "ebpf"},
            {"state", "protected"},
            {"cause", ""},
            {"remedy", ""},
            {"epoch", 3},
            {"head", 900},
            {"received", 890},
            {"stored", 890},
            {"todo_blocks", 16},
            {"in_flight_blocks", 0},
            {"live_blocks", 0},
            {"rpo_s", 12.5},
            {"backlog_age_s", 0.8},
            {"synced", true},
            {"sync", nullptr},
            {"last_point",
             {{"id", "p-1"},
              {"name", "nightly"},
              {"time_ns", 1700000000000000000u},
              {"frozen_ms", 45}}},
            {"io_engine", "io_uring"},
            {"sent_bytes", 1000},
            {"raw_bytes", 2000},
            {"read_bytes", 3000},
            {"frozen_ms_total", 45}};
}

// A replicator that answers as told, and cbtctl run against it.
class Fake {
  public:
    Fake() {
        // One lock over the whole answer: what a test sets before run() is seen here, and what an
        // answer changed is seen after it.
        auto server = ControlServer::start(dir_.path() / "c.sock",
                                           [this](const json& request, ControlConnection& peer) {
                                               std::lock_guard<std::mutex> guard(lock_);
                                               requests_.push_back(request);
                                               if (told_handler_) {
                                                   told_handler_(request, peer);
                                               } else {
                                                   (void)peer.send(told_reply_);
                                               }
                                           });
        REQUIRE(server);
        server_ = std::move(*server);
    }

    Ran run(const std::string& arguments) {
        {
            std::lock_guard<std::mutex> guard(lock_);
            told_reply_ = reply;
            told_handler_ = handler;
        }
        const std::string out = (dir_.path() / "out").native(),
                          err = (dir_.path() / "err").native();
        const int rc = std::system((std::string(HERALD_BIN_DIR) + "/cbtctl --socket " +
                                    (dir_.path() / "c.sock").native() + " " + arguments + " >" +
                                    out + " 2>" + err + " </dev/null")
                                       .c_str());
        std::lock_guard<std::mutex> guard(lock_);
        return {WIFEXITED(rc) ? WEXITSTATUS(rc) : -1, slurp(out), slurp(err)};
    }
    json last_request() {
        std::lock_guard<std::mutex> guard(lock_);
        return requests_.empty() ? json() : requests_.back();
    }
    const std::filesystem::path& dir() const { return dir_.path(); }

    json reply = json::object();
    ControlServer::Handler handler;

  private:
    test::TempDir dir_;
    std::mutex lock_;  // guards all below but the server
    json told_reply_;
    ControlServer::Handler told_handler_;
    std::vector<json> requests_;
    std::unique_ptr<ControlServer> server_;
};

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("list shows a table, causes below it, and the answer itself as JSON") {
    Fake fake;
    json degraded = disk_status();
    degraded["path"] = "/dev/sdc";
    degraded["state"] = "degraded";
    degraded["cause"] = "the server is full";
    degraded["remedy"] = "free space there";
    degraded["rpo_s"] = nullptr;
    fake.reply = {{"disks", {disk_status(), degraded}}};
    const Ran table = fake.run("list");
    CHECK(table.status == 0);
    CHECK(contains(table.out, "DISK"));
    CHECK(contains(table.out, "/dev/sdb  1.0 GiB  ebpf     protected  12.5 s"));
    CHECK(contains(table.out, "/dev/sdc: the server is full"));
    CHECK(contains(table.out, "what to do: free space there"));
    CHECK(json::parse(fake.run("list --json").out) == fake.reply);
    fake.reply = {{"disks", json::array()}};
    CHECK(contains(fake.run("list").out, "cbtctl protect"));
}

TEST_CASE("what cannot be printed is a failure, however much it is") {
    Fake fake;
    for (const size_t disks : {1, 100}) {
        fake.reply = {{"disks", std::vector<json>(disks, disk_status())}};
        for (const std::string verb : {"list", "list --json", "--help"}) {
            CHECK(fake.run(verb + " >/dev/full; exit $?; true").status == 1);
            CHECK(fake.run(verb).status == 0);
        }
    }
}

TEST_CASE("status shows one disk; strange answers do not crash it") {
    Fake fake;
    fake.reply = disk_status();
    fake.reply["counters"] = {{"submissions", 5}, {"completions", 4}};
    const Ran ran = fake.run("status sdb");
    CHECK(ran.status == 0);
    CHECK(fake.last_request() == json{{"op", "status"}, {"disk", "sdb"}});
    CHECK(contains(ran.out, "serial:X1"));
    CHECK(contains(ran.out, "1.0 MiB to do"));
    CHECK(contains(ran.out, "nightly"));
    CHECK(contains(ran.out, "5 submissions, 4 completions"));
    CHECK(json::parse(fake.run("--json status sdb").out) == fake.reply);
    fake.reply = {
        {"path", 7}, {"bytes", "x"}, {"sync", 3}, {"last_point", "p"}, {"state", nullptr}};
    CHECK(fake.run("status sdb").status == 0);
    CHECK(fake.run("map sdb").status == 1);
    fake.reply = {{"disks", "none"}};
    CHECK(fake.run("list").status == 0);
}

TEST_CASE("map draws dirty regions where they are") {
    Fake fake;
    // 7800 blocks on 78 cells: 100 blocks for each sign.
    fake.reply = {
        {"block_bytes", 65536}, {"blocks", 7800},     {"runs", {{0, 100}, {150, 10}, {7750, 50}}},
        {"live_blocks", 60},    {"todo_blocks", 100}, {"in_flight_blocks", 0}};
    const Ran ran = fake.run("map sdb");
    CHECK(ran.status == 0);
    CHECK(contains(ran.out, "[#-" + std::string(75, '.') + "+]"));
    CHECK(contains(ran.out, "10.0 MiB of 487.5 MiB is dirty"));
    CHECK(contains(ran.out, "each sign is 6.2 MiB"));
    CHECK(json::parse(fake.run("map sdb --json --runs-max 9").out) == fake.reply);
    CHECK(fake.last_request() == json{{"op", "map"}, {"disk", "sdb"}, {"runs_max", 9}});
    // Fewer blocks than columns, and runs that reach beyond the disk.
    fake.reply["blocks"] = 3;
    fake.reply["runs"] = {{1, 1}, {2, 1000000}, {99, 1}, {-1, 2}, "x"};
    CHECK(contains(fake.run("map sdb").out, "[.##]"));
}

TEST_CASE("protect sends the whole path, unprotect and resync what was asked") {
    Fake fake;
    fake.reply = {{"ok", true}};
    CHECK(fake.run("protect ./x").status == 0);
    CHECK(fake.last_request()["path"].get<std::string>().front() == '/');
    CHECK(fake.run("unprotect sdb").status == 0);
    CHECK(fake.last_request() == json{{"op", "unprotect"}, {"disk", "sdb"}});
    for (const std::string how : {"full", "digest", "dirty"}) {
        CHECK(fake.run("resync sdb --" + how).status == 0);
        CHECK(fake.last_request() == json{{"op", "resync"}, {"disk", "sdb"}, {"how", how}});
    }
}

TEST_CASE("every failure has its exit status and a message") {
    Fake fake;
    fake.reply = {{"error", {{"kind", "operator"}, {"message", "disk sdx is not protected"}}}};
    const Ran refused = fake.run("status sdx");
    CHECK(refused.status == 1);
    CHECK(refused.err == "cbtctl: disk sdx is not protected\n");
    CHECK(fake.run("").status == 2);
    CHECK(fake.run("resync sdb").status == 2);
    CHECK(fake.run("resync sdb --full --dirty").status == 2);
    CHECK(fake.run("status").status == 2);
    CHECK(fake.run("nonsense").status == 2);
    CHECK(fake.run("tag sdb --name " + std::string(300, 'n')).status == 2);
    const Ran nobody = fake.run("list --socket /nonexistent/c.sock");
    CHECK(nobody.status == 3);
    CHECK(contains(nobody.err, "systemctl start herald-replicator"));
    for (const char* command :
         {"", "list", "status", "map", "tag", "resync", "protect", "unprotect", "doctor"}) {
        const Ran help = fake.run(std::string(command) + " --help");
        CHECK(help.status == 0);
        CHECK(contains(help.out, "xample"));
    }
}

TEST_CASE("tag shows the point; --json gives it whole") {
    Fake fake;
    fake.handler = [](const json& request, ControlConnection& peer) {
        (void)peer.send({{"phase", "catch_up"}});
        (void)peer.send({{"phase", "something new"}});
        (void)peer.send({{"point",
                          {{"id", "p-7"},
                           {"name", request["name"]},
                           {"time_ns", 1700000000000000000u},
                           {"position", 42},
                           {"frozen_ms", 31.5},
                           {"hold_ms", 0},
                           {"stored", true}}}});
    };
    const Ran ran = fake.run("tag sdb --name 'before upgrade'");
    CHECK(ran.status == 0);
    CHECK(fake.last_request() ==
          json{{"op", "tag"}, {"disk", "sdb"}, {"name", "before upgrade"}, {"hold", false}});
    CHECK(contains(ran.out, "point p-7  before upgrade"));
    CHECK(contains(ran.out, "frozen 31.5 ms"));
    CHECK(json::parse(fake.run("tag sdb --json").out)["point"]["id"] == "p-7");
}

TEST_CASE("a command runs exactly while frozen, its output passes through, its failure refuses") {
    Fake fake;
    std::atomic<bool> frozen{false};
    std::mutex lock;
    std::string ended;  // guarded by lock: what ended the hold
    fake.handler = [&](const json& request, ControlConnection& peer) {
        if (request["hold"] != true) return (void)peer.send_error({ErrorKind::retry, "no hold", 0});
        frozen = true;
        (void)replace_file(fake.dir() / "frozen", as_bytes("y"));
        (void)peer.send({{"frozen", true}, {"deadline_ms", 600}});
        json next;
        auto received = peer.receive(next, 600ms);
        std::filesystem::remove(fake.dir() / "frozen");
        const bool thaw = received && *received == Received::message && next["op"] == "thaw";
        {
            std::lock_guard<std::mutex> guard(lock);
            ended = received && *received == Received::message ? next["op"].get<std::string>()
                                                               : "nothing";
        }
        if (thaw) {
            (void)peer.send(
                {{"point", {{"id", "p-8"}, {"time_ns", 1}, {"frozen_ms", 60}, {"hold_ms", 50}}}});
        } else {
            (void)peer.send_error({ErrorKind::retry, "the point was refused", 0});
        }
    };
    const std::string is_frozen = "test -f " + (fake.dir() / "frozen").native();
    const Ran good = fake.run("tag sdb --while-frozen '" + is_frozen + " && echo hash of it'");
    CHECK(good.status == 0);
    CHECK(good.out.rfind("hash of it\n", 0) == 0);
    CHECK(contains(good.out, "of which the command"));
    CHECK(contains(good.out, "Herald 10.0 ms"));
    CHECK(ended == "thaw");

    const Ran bad = fake.run("tag sdb --while-frozen 'echo text; exit 3'");
    CHECK(bad.status == 5);
    CHECK(contains(bad.out, "text"));
    CHECK(contains(bad.err, "ended with status 3"));
    CHECK(ended == "abort");

    const auto started = std::chrono::steady_clock::now();
    const Ran late = fake.run("tag sdb --while-frozen 'sleep 20; echo never'");
    CHECK(late.status == 5);
    CHECK(contains(late.err, "still running when the freeze ended"));
    CHECK_FALSE(contains(late.out, "never"));
    CHECK(std::chrono::steady_clock::now() - started < 5s);
    CHECK(ended == "nothing");
}

TEST_CASE("waiting for the sync shows progress, ends when it is done and gives up in time") {
    Fake fake;
    std::atomic<int> asked{0};
    fake.handler = [&](const json&, ControlConnection& peer) {
        json disk = disk_status();
        if (asked++ < 4) {
            disk["state"] = "initial sync";
            disk["synced"] = false;
            disk["sync"] = {{"done_bytes", asked * 100u << 20}, {"total_bytes", 1u << 30}};
        }
        (void)peer.send(disk);
    };
    const Ran done = fake.run("status sdb --wait-synced --timeout 20");
    CHECK(done.status == 0);
    CHECK(contains(done.out, "/dev/sdb is in sync: protected"));
    CHECK(contains(done.err, "100.0 MiB of 1.0 GiB"));
    CHECK(contains(done.err, "100 %"));
    asked = -1000000;
    const Ran late = fake.run("status sdb --wait-synced --timeout 0.6");
    CHECK(late.status == 4);
    CHECK(contains(late.err, "not in sync after 600.0 ms"));
}

TEST_CASE("doctor works without a replicator and adds a running one's checks") {
    Fake fake;
    fake.reply = {
        {"checks",
         {{{"name", "server"}, {"ok", false}, {"detail", "no answer"}, {"remedy", "start it"}}}}};
    const Ran with = fake.run("doctor --json");
    CHECK(with.status == 1);
    const json checks = json::parse(with.out)["checks"];
    const auto ok = [&](const std::string& name) {
        for (const json& check : checks) {
            if (check["name"] == name) return check["ok"].get<bool>();
        }
        throw std::runtime_error("no check " + name);
    };
    CHECK(ok("replicator"));
    CHECK_FALSE(ok("server"));
    for (const char* name : {"root", "kernel BTF", "bpffs", "I/O engine", "clock", "guardian"}) {
        CHECK_NOTHROW(ok(name));
    }
    const Ran without = fake.run("doctor --socket /nonexistent/c.sock");
    CHECK(without.status == 1);
    CHECK(contains(without.out, "FAIL  replicator"));
    CHECK(contains(without.out, "what to do: "));
}

TEST_CASE("format-meta makes a meta device that decodes, and spares what it should") {
    Fake fake;
    const std::string disk = (fake.dir() / "disk").native(), meta = (fake.dir() / "meta").native();
    constexpr uint64_t kDisk = 3ull << 30;
    const auto make = [&](const std::string& path, uint64_t bytes) {
        std::filesystem::remove(path);
        REQUIRE(replace_file(path, {}));
        std::filesystem::resize_file(path, bytes);
    };
    make(disk, kDisk);
    const uint64_t needed = cbt_meta_blocks(kDisk / 512) * CBT_META_BLOCK_BYTES;
    const std::string words = "format-meta " + meta + " --disk " + disk;

    make(meta, needed - 1);
    Ran small = fake.run(words);
    CHECK(small.status == 1);
    CHECK(contains(small.err, "too small"));
    CHECK(contains(small.err, std::to_string(needed)));

    // Every kind of content is spared, at the end as at the start.
    struct Held {
        uint64_t offset;
        std::string bytes, words;
    };
    for (const Held& held : {Held{0x438, "\x53\xef", "ext4"}, Held{512, "LABELONE", "LVM"},
                             Held{needed - 1, "x", "unknown"}, Held{0, "XFSB", "XFS"}}) {
        make(meta, needed);
        auto fd = open_file(meta, O_RDWR);
        REQUIRE(write_exact(fd->get(), held.offset, as_bytes(held.bytes), meta));
        const std::string before = slurp(meta);
        const Ran spared = fake.run(words);
        CHECK(spared.status == 1);
        CHECK(contains(spared.err, held.words));
        CHECK(contains(spared.err, "--force"));
        CHECK(slurp(meta) == before);
    }

    CHECK(fake.run(words + " --force").status == 0);
    const std::string made = slurp(meta);
    cbt_superblock superblock{};
    REQUIRE(cbt_superblock_decode(made.data(), &superblock));
    CHECK(superblock.sectors == kDisk / 512);
    CHECK(superblock.state == CBT_META_NEW);
    for (uint64_t number = 0; number < cbt_meta_bitmap_blocks(kDisk / 512); ++number) {
        u64 sequence = 0;
        CHECK(cbt_meta_newest(
                  made.data() + (CBT_META_PAIR_BITMAP + number) * 2 * CBT_META_BLOCK_BYTES,
                  CBT_META_BITMAP, number, superblock.tracking, &sequence) >= 0);
    }
    // Herald's own is spared, too, and a new one is another tracking.
    const Ran again = fake.run(words);
    CHECK(again.status == 1);
    CHECK(contains(again.err, "meta device of Herald"));
    const json second = json::parse(fake.run(words + " --force --json").out);
    CHECK(second["used_bytes"] == needed);
    cbt_superblock other{};
    REQUIRE(cbt_superblock_decode(slurp(meta).data(), &other));
    CHECK(std::string(reinterpret_cast<const char*>(other.tracking), 16) !=
          std::string(reinterpret_cast<const char*>(superblock.tracking), 16));

    CHECK(contains(fake.run("format-meta " + disk + " --disk " + disk).err, "same device"));
    CHECK(fake.run("format-meta " + meta).status == 2);
}

TEST_CASE("what the driver cannot do is refused by name, and what eBPF does is said") {
    Fake fake;
    fake.reply = {{"ok", true}};
    const Ran refused = fake.run("protect /dev/null --tracker dm_cbt");
    CHECK(refused.status == 1);
    CHECK(contains(refused.err, "not a device-mapper device"));
    CHECK(fake.last_request().is_null());
    CHECK(fake.run("protect /dev/null --meta /dev/zero").status == 1);
    CHECK(fake.run("protect /dev/null --tracker-only").status == 1);
    CHECK(fake.last_request().is_null());
    CHECK(fake.run("protect /dev/null --tracker kprobe").status == 2);
    const Ran automatic = fake.run("protect /dev/null");
    CHECK(automatic.status == 0);
    CHECK(contains(automatic.err, "tracked by eBPF"));
    CHECK(fake.last_request()["op"] == "protect");
    CHECK(fake.run("unprotect /dev/null --tracker-only").status == 1);

    CHECK(fake.run("tag").status == 2);
    CHECK(fake.run("tag sdb --disks sdb,sdc").status == 2);
    CHECK(fake.run("tag --disks sdb --name nightly").status == 2);
    CHECK(fake.run("stats /dev/null").status == 1);
}

TEST_CASE("assemble goes on after a line that fails, and says which") {
    Fake fake;
    const std::string file = (fake.dir() / "volumes").native();
    const auto assemble = [&](const std::string& text) {
        REQUIRE(replace_file(file, as_bytes(text)));
        return fake.run("assemble --file " + file);
    };
    CHECK(assemble("\n# none yet\n").status == 0);
    const Ran ran = assemble("/dev/null -\n\n/dev/alone\n/dev/no-such-volume - # here\n");
    CHECK(ran.status == 1);
    CHECK(contains(ran.err, "/dev/null is not there, or no device-mapper device"));
    CHECK(contains(ran.err, "line 3"));
    CHECK(contains(ran.err, "/dev/no-such-volume"));
    CHECK(fake.run("assemble --file " + file + ".none").status == 1);
    CHECK(fake.last_request().is_null());
}
