// SPDX-License-Identifier: Apache-2.0
// The hrl program converting between both formats, and what it leaves of a file that it has not
// finished.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "tests/unit/hrl/v2/log_chain.h"
#include "user/hrl/v2/log_writer.h"

using namespace herald;
using namespace herald::hrl;
using namespace herald::hrl::v2;
namespace logs = herald::hrl::v2::test;
namespace segments = herald::hrl::test;
using Files = segments::ToolDirectory;
using logs::kDisk;
using logs::LogChain;
using logs::sample_segment;

namespace {

using herald::test::Run;

bool has(const Run& run, const std::string& text) { return run.has(text); }

constexpr uint64_t kLargeLogBytes = 320ull << 20;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

// Writes of 256 KiB all over a disk of a quarter of the size, that do not compress.
void write_large_log(const std::filesystem::path& path, uint64_t bytes) {
    auto sink = file_sink(path);
    REQUIRE(sink);
    LogHeader header;
    header.id = segments::sample_id(0x71);
    auto writer = LogWriter::open(**sink, header);
    REQUIRE(writer);
    std::mt19937_64 random(1);
    Bytes data = logs::noise(random, 256 << 10);
    const uint64_t places = bytes / data.size() / 4;
    for (uint64_t i = 0; i < bytes / data.size(); ++i) {
        store_le<uint64_t>(data.data(), i);
        REQUIRE(writer->append(i * 7 % places * data.size(), data, logs::kLeapDay));
    }
    REQUIRE(writer->finish());
}

}  // namespace

TEST_CASE("hrl converts both ways, and says first what is lost") {
    Files files;
    files.write("0001.hrl", sample_segment());
    const Run dry = files.shell("hrl convert 0001.hrl --to log.hrl --format v2 --dry-run");
    CHECK(dry.status == 0);
    CHECK(has(dry, "v2 cannot carry: "));
    CHECK(has(dry, "recovery points"));
    CHECK_FALSE(files.exists("log.hrl"));
    const Run there = files.shell("hrl convert 0001.hrl --to log.hrl --format v2");
    INFO(there.output);
    CHECK(there.status == 0);
    CHECK(has(there, "v2 cannot carry: "));
    CHECK(files.shell("hrl verify log.hrl").status == 0);
    CHECK(files.shell("hrl diff 0001.hrl log.hrl").status == 0);

    const std::string ids =
        "--machine 11111111-1111-1111-1111-111111111111 "
        "--disk 22222222-2222-2222-2222-222222222222 ";
    const Run back =
        files.shell("hrl convert log.hrl --to back.hrl --format v3 --disk-bytes 1M " + ids);
    INFO(back.output);
    CHECK(back.status == 0);
    CHECK_FALSE(has(back, "does not say"));
    CHECK(files.shell("hrl diff 0001.hrl back.hrl").status == 0);
    const auto info = files.json("hrl info back.hrl --json");
    CHECK(info["disk_bytes"] == kDisk);
    CHECK(info["disk"] == "22222222-2222-2222-2222-222222222222");
    // Ids that link files survive both ways.
    CHECK(info["segment"] == "33333333-3333-3333-3333-333333333333");

    const auto refused = [&](const std::string& arguments, const char* why) {
        const Run run = files.shell("hrl convert " + arguments);
        INFO(run.output);
        CHECK(run.status == 2);
        CHECK(has(run, why));
    };
    refused("0001.hrl --to log.hrl --format v2", "exists");
    refused("0001.hrl --to x.hrl --format v3", "is v3 already");
    refused("0001.hrl --to x.hrl --format v4", "not understood");
    refused("log.hrl --to x.hrl --format v3 --disk-bytes 4K", "something was written up to");
    const Run assumed = files.shell("hrl convert log.hrl --to assumed.hrl --format v3");
    CHECK(assumed.status == 0);
    CHECK(has(assumed, "v2 does not say how large the disk is"));
    CHECK(has(assumed, "v2 does not say whose disk it is"));
    CHECK_FALSE(files.exists("x.hrl"));
}

TEST_CASE("hrl converts a whole chain of logs to one stream") {
    LogChain chain;
    CHECK(chain.shell("hrl convert *.hrl --to all.out --format v3").status == 0);
    CHECK(chain.json("hrl info all.out --json")["last_position"] == 90);
    CHECK(chain.shell("hrl apply all.out --to all.img").status == 0);
    Bytes made = chain.read("all.img");
    made.resize(kDisk);
    CHECK(made == chain.disk_at(90));
}

TEST_CASE("hrl converts a log larger than its memory to one segment") {
    Files files;
    write_large_log(files.at("large.hrl"), kLargeLogBytes);
    // Libraries and code included.
    const std::string limited = kSanitized ? "" : "ulimit -v 65536; ";
    const Run run = files.shell(limited + "hrl convert large.hrl --to one.hrl --format v3");
    INFO(run.output);
    REQUIRE(run.status == 0);
    CHECK(files.exists("one.hrl"));
    CHECK_FALSE(files.exists("one.2.hrl"));
    CHECK_FALSE(files.exists("one.hrl.part"));
    CHECK(files.json("hrl info one.hrl --json")["raw_bytes"] > kLargeLogBytes);
    CHECK(files.shell("hrl diff large.hrl one.hrl").status == 0);
    CHECK(has(files.shell(limited + "hrl records one.hrl | wc -l"), "1280"));
    CHECK(has(files.shell(limited + "hrl records large.hrl | wc -l"), "1280"));
    // And back, as large.
    CHECK(files.shell(limited + "hrl convert one.hrl --to back.hrl --format v2").status == 0);
    CHECK(files.shell("hrl diff large.hrl back.hrl").status == 0);
}

TEST_CASE("hrl leaves nothing of a new file when a signal ends it") {
    Files files;
    write_large_log(files.at("large.hrl"), kLargeLogBytes / 4);
    const std::string prefix =
        "cd '" + files.dir.path().native() + "' && exec '" HERALD_BIN_DIR "/hrl' ";
    for (const std::string verb :
         {"convert large.hrl --format v3 --to out", "apply large.hrl --force --to out",
          "repair large.hrl --to out"}) {
        for (const int signal : {SIGINT, SIGTERM}) {
            const pid_t child = ::fork();
            REQUIRE(child >= 0);
            if (child == 0) {
                ::execl("/bin/sh", "sh", "-c", (prefix + verb).c_str(), nullptr);
                ::_exit(127);
            }
            int status = 0;
            while (!files.exists("out.part")) {
                REQUIRE(::waitpid(child, &status, WNOHANG) == 0);
            }
            REQUIRE(::kill(child, signal) == 0);
            REQUIRE(::waitpid(child, &status, 0) == child);
            INFO(verb);
            CHECK(WIFSIGNALED(status));
            CHECK(WTERMSIG(status) == signal);
            CHECK_FALSE(files.exists("out"));
            CHECK_FALSE(files.exists("out.part"));
        }
    }
}
