// SPDX-License-Identifier: Apache-2.0
// The hrl program with files of both formats, run as a user runs it; and its man page's examples.
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

}  // namespace

TEST_CASE("hrl info, records and verify take replica logs") {
    LogChain chain;
    const auto info = chain.json("hrl info c.hrl --json");
    CHECK(info["format"] == "hrl v2");
    CHECK(info["entries"] == 30);
    CHECK(info["whole"] == true);
    CHECK(info["log"] == "70707070-7070-7070-7070-707070707070");
    CHECK(info["entry_order"] == "newest first");
    CHECK(has(chain.shell("hrl info c.hrl"), "30 in 4 metadata blocks"));

    const auto records = chain.json("hrl records b.hrl --json");
    REQUIRE(records.size() == 30);
    for (size_t i = 0; i < 30; ++i) {
        CHECK(records[i]["position"] == i + 1);
        CHECK(records[i]["offset"] == chain.writes[30 + i].offset);
        CHECK(records[i]["length"] == chain.writes[30 + i].data.size());
    }
    const Run verified = chain.shell("hrl verify *.hrl");
    CHECK(verified.status == 0);
    CHECK(has(verified, "b.hrl: ok, 30 records, positions 1 to 30"));
}

TEST_CASE("hrl records filters by position, time and range, in both formats") {
    Files files;
    const auto writes = logs::sample_writes(8, 60, kDisk);
    files.write("v2.hrl", logs::build_log(writes));
    REQUIRE(files.shell("hrl convert v2.hrl --to v3.hrl --format v3").status == 0);
    for (const std::string file : {"v2.hrl", "v3.hrl"}) {
        const auto count = [&](const std::string& filter) {
            return files.json("hrl records " + file + " --json " + filter).size();
        };
        CHECK(count("") == 60);
        CHECK(count("--positions 11-20") == 10);
        CHECK(count("--positions 51-") == 10);
        CHECK(count("--positions -3") == 3);
        CHECK(count("--positions 7") == 1);
        CHECK(count("--positions 61-") == 0);
        // Three writes a second, from noon on.
        CHECK(count("--since 2024-02-29T12:00:10Z") == 30);
        CHECK(count("--before 2024-02-29T12:00:10Z") == 30);
        CHECK(count("--since 2024-02-29T12:00:01.5 --before 2024-02-29T12:00:02.5Z") == 3);
        CHECK(count("--since 2024-03-01") == 0);
        size_t touching = 0;
        for (const auto& write : writes) {
            touching += write.offset < 300 * 1024 && write.offset + write.data.size() > 100 * 1024;
        }
        CHECK(touching > 5);
        CHECK(count("--range 100K+200K") == touching);
        CHECK(count("--range 0+1M --positions 1-5") == 5);
    }
    for (const char* wrong : {"--positions x", "--positions -", "--since noon", "--range 5",
                              "--range 0+0", "--before 2024-02-29T12:00:00+01"}) {
        CHECK(files.shell(std::string("hrl records v2.hrl ") + wrong).status == 2);
    }
}

TEST_CASE("hrl apply brings a copy forward along a chain of logs") {
    LogChain chain;
    const Bytes copy(kDisk, std::byte{0x5a});
    chain.write("copy.img", copy);
    CHECK(chain.shell("hrl apply *.hrl --to copy.img").status == 2);
    CHECK(chain.read("copy.img") == copy);
    const Run applied = chain.shell("hrl apply *.hrl --to copy.img --force");
    INFO(applied.output);
    CHECK(applied.status == 0);
    CHECK(chain.read("copy.img") == chain.disk_at(90, copy));

    // Positions are counted through the chain.
    for (const size_t until : {1, 30, 31, 60, 89}) {
        chain.write("until.img", copy);
        CHECK(chain.shell("hrl apply *.hrl --to until.img --force --until " + std::to_string(until))
                  .status == 0);
        CHECK(chain.read("until.img") == chain.disk_at(until, copy));
    }
    const Run fresh = chain.shell("hrl apply *.hrl --to new.img");
    CHECK(fresh.status == 2);
    CHECK(has(fresh, "copy"));
    CHECK(chain.shell("hrl apply *.hrl --to new.img --force").status == 0);
    Bytes made = chain.read("new.img");
    made.resize(kDisk);
    CHECK(made == chain.disk_at(90));
}

TEST_CASE("hrl apply refuses gaps, forks, repetitions and mixtures of logs") {
    LogChain chain;
    logs::LogShape shape;
    shape.id = 0x7e;
    shape.previous = 0x70;
    chain.write("fork.hrl", logs::build_log(chain.writes, shape));
    chain.write("v3.hrl", sample_segment());
    shape.closed = false;
    chain.write("unclosed.hrl", logs::build_log(chain.writes, shape));
    const auto refused = [&](const std::string& files, int status, const char* why) {
        const Run run = chain.shell("hrl apply " + files + " --to x.img --force");
        INFO(run.output);
        CHECK(run.status == status);
        CHECK(has(run, why));
        CHECK_FALSE(chain.exists("x.img"));
        CHECK_FALSE(chain.exists("x.img.part"));
    };
    refused("a.hrl c.hrl", 2, "gap: c.hrl follows log");
    refused("a.hrl b.hrl c.hrl fork.hrl", 2, "fork: ");
    refused("c.hrl c.hrl", 2, "duplicate: ");
    refused("c.hrl v3.hrl", 2, "files of one format");
    refused("c.hrl unclosed.hrl", 1, "hrl repair");
    refused("a.hrl b.hrl c.hrl --until 91", 2, "positions 1 to 90");
    Bytes bytes = chain.read("b.hrl");
    bytes[4096 + 512 + 10] ^= std::byte{1};
    chain.write("b.hrl", bytes);
    refused("a.hrl b.hrl c.hrl", 1, "is not what was written");
}

TEST_CASE("hrl apply leaves a file alone that is in the way of its unfinished image") {
    Files files;
    files.write("0001.hrl", sample_segment());
    files.write("disk.img.part", Bytes(10, std::byte{1}));
    CHECK(files.shell("hrl apply 0001.hrl --to disk.img").status == 2);
    CHECK(files.read("disk.img.part") == Bytes(10, std::byte{1}));
}

TEST_CASE("hrl repair writes what is proven to a new file, of either format") {
    Files files;
    const auto writes = logs::sample_writes(12, 60, kDisk);
    const Bytes log = logs::build_log(writes);
    const Bytes segment = sample_segment();
    files.write("torn_log.hrl", Bytes(log.begin(), log.begin() + ptrdiff_t(log.size() * 2 / 3)));
    logs::LogShape unclosed;
    unclosed.closed = false;
    files.write("unclosed.hrl", logs::build_log(writes, unclosed));
    Bytes flipped = log;
    flipped[log.size() / 2] ^= std::byte{1};
    files.write("flipped_log.hrl", flipped);
    files.write("torn_segment.hrl",
                Bytes(segment.begin(), segment.begin() + ptrdiff_t(segment.size() * 2 / 3)));
    flipped = segment;
    flipped[segment.size() / 2] ^= std::byte{1};
    files.write("flipped_segment.hrl", flipped);
    files.write("whole.hrl", segment);
    for (const std::string name :
         {"torn_log", "unclosed", "flipped_log", "torn_segment", "flipped_segment", "whole"}) {
        const Bytes before = files.read(name + ".hrl");
        const Run list = files.shell("hrl records " + name + ".hrl 2>/dev/null");
        const Run run = files.shell("hrl repair " + name + ".hrl --to " + name + ".fixed");
        INFO(name << ": " << run.output);
        CHECK(run.status == 0);
        CHECK(has(run, name == "whole" ? "nothing was lost" : " lost") !=
              has(run, "nothing from there"));
        CHECK(files.read(name + ".hrl") == before);
        CHECK(files.shell("hrl verify " + name + ".fixed").status == 0);
        CHECK(files.shell("hrl records " + name + ".fixed").output == list.output);
        CHECK(list.output.size() > 100);
        // Nothing is written over.
        const Bytes fixed = files.read(name + ".fixed");
        CHECK(files.shell("hrl repair " + name + ".hrl --to " + name + ".fixed").status == 2);
        CHECK(files.read(name + ".fixed") == fixed);
        CHECK_FALSE(files.exists(name + ".fixed.part"));
    }
    // What is whole is written as it was, byte for byte.
    CHECK(files.read("whole.fixed") == segment);
    files.write("hopeless.hrl", Bytes(segment.begin(), segment.begin() + 300));
    CHECK(files.shell("hrl repair hopeless.hrl --to x.hrl").status == 1);
    CHECK_FALSE(files.exists("x.hrl"));
}

TEST_CASE("hrl diff tells where journals leave a disk different, with a status of its own") {
    Files files;
    auto writes = logs::sample_writes(13, 40, kDisk);
    files.write("a.hrl", logs::build_log(writes));
    writes.push_back({4096, Bytes(1024, std::byte{0x77}), logs::kLeapDay + 100});
    files.write("b.hrl", logs::build_log(writes));
    CHECK(files.shell("hrl diff a.hrl a.hrl").status == 0);
    const auto diff = files.json("hrl diff a.hrl b.hrl --json", 3);
    CHECK(diff["different_bytes"] == 1024);
    CHECK(diff["ranges"][0]["offset"] == 4096);
    const Run text = files.shell("hrl diff a.hrl b.hrl");
    CHECK(text.status == 3);
    CHECK(has(text, "1.0 KiB differ"));
    CHECK_FALSE(has(text, "\x1b["));
    CHECK(files.shell("hrl diff a.hrl nowhere.hrl").status == 2);
    Bytes torn = files.read("a.hrl");
    torn.resize(torn.size() - 1);
    files.write("torn.hrl", torn);
    CHECK(files.shell("hrl diff a.hrl torn.hrl").status == 1);
}

TEST_CASE("hrl stats counts sizes, churn, hot regions and compressibility") {
    Files files;
    std::mt19937_64 random(1);
    std::vector<logs::Write> writes;
    for (uint32_t i = 0; i < 10; ++i) {
        writes.push_back({5u << 20, Bytes(4096), logs::kLeapDay});
        writes.push_back({i << 20, logs::noise(random, 512), logs::kLeapDay + i});
    }
    files.write("log.hrl", logs::build_log(writes));
    const auto stats = files.json("hrl stats log.hrl --json");
    CHECK(stats["kinds"]["write"]["records"] == 20);
    CHECK(stats["kinds"]["write"]["bytes"] == 10 * 4608);
    REQUIRE(stats["write_sizes"].size() == 2);
    CHECK(stats["write_sizes"][0]["up_to_bytes"] == 512);
    CHECK(stats["write_sizes"][1]["up_to_bytes"] == 4096);
    CHECK(stats["write_sizes"][1]["writes"] == 10);
    CHECK(stats["churn"]["seconds"] == 9.0);
    CHECK(stats["churn"]["buckets"].size() == 10);
    CHECK(stats["churn"]["peak_bytes"] == 10 * 4096 + 512);
    CHECK(stats["churn"]["peak_time"] == "2024-02-29T12:00:00.000000000Z");
    CHECK(stats["hottest_regions"][0]["offset"] == 5u << 20);
    CHECK(stats["hottest_regions"][0]["writes"] == 11);
    CHECK(stats["compression"]["zero_bytes"] == 40'960);
    CHECK(stats["compression"]["incompressible_writes"] == 10);
    CHECK(stats["compression"]["ratio"] > 4.0);
    for (const char* part : {"records", "churn", "hottest regions", "compression", "4.0 KiB"}) {
        CHECK(has(files.shell("hrl stats log.hrl"), part));
    }
    files.write("0001.hrl", sample_segment());
    CHECK(files.json("hrl stats 0001.hrl --json")["kinds"].contains("discard"));
}

TEST_CASE("hrl shows what is plain of a sealed segment, and opens it with its keys") {
    Files files;
    const auto key = seal::MachineKey::create(segments::sample_id(0x11));
    const auto file = seal::new_root_key();
    auto root = seal::open_root_key(file, "root", nullptr);
    REQUIRE(root);
    auto wrapped = seal::wrap_machine_key(key, **root);
    REQUIRE(wrapped);
    const auto root_text = seal::format_root_key(file);
    REQUIRE(replace_file(files.at("root"), root_text.view(), 0600));
    REQUIRE(
        replace_file(files.at("machine.key"), as_bytes(seal::format_machine_key(*wrapped)), 0600));
    const auto records = segments::sample_records(3, 60, kDisk);
    const SegmentHeader header = segments::sample_header(4096);
    files.write("sealed.hrl", segments::write_sealed(header, records, key).bytes);
    files.write("plain.hrl", segments::write_segment(header, records).bytes);
    const std::string keys = " --key root --keys machine.key";

    CHECK(files.json("hrl info sealed.hrl --json")["sealed_by"] == "source");
    CHECK(files.shell("hrl records sealed.hrl 2>/dev/null").output ==
          files.shell("hrl records plain.hrl").output);
    const Run verified = files.shell("hrl verify sealed.hrl");
    CHECK(verified.status == 0);
    CHECK(has(verified, "nothing of it is authenticated"));
    CHECK_FALSE(has(files.shell("hrl verify sealed.hrl" + keys), "authenticated"));
    CHECK(files.json("hrl stats sealed.hrl --json")["compression"]["readable_bytes"] == 0);

    for (const char* command :
         {"apply sealed.hrl --to x", "diff sealed.hrl plain.hrl",
          "convert sealed.hrl --to x --format v2", "repair sealed.hrl --to x"}) {
        INFO(command);
        CHECK(files.shell(std::string("hrl ") + command).status == 2);
        CHECK_FALSE(files.exists("x"));
    }
    CHECK(files.shell("hrl apply sealed.hrl --to sealed.img" + keys).status == 0);
    CHECK(files.shell("hrl apply plain.hrl --to plain.img").status == 0);
    CHECK(files.read("sealed.img") == files.read("plain.img"));
    CHECK(files.shell("hrl diff sealed.hrl plain.hrl --allow-plain" + keys).status == 0);
    CHECK(has(files.shell("hrl convert sealed.hrl --to log.hrl --format v2" + keys), "the seal"));
    CHECK(files.shell("hrl diff sealed.hrl log.hrl --allow-plain" + keys).status == 0);

    Bytes torn = files.read("sealed.hrl");
    torn.resize(torn.size() * 2 / 3);
    files.write("torn.hrl", torn);
    const Run repaired = files.shell("hrl repair torn.hrl --to repaired.hrl" + keys);
    INFO(repaired.output);
    CHECK(repaired.status == 0);
    CHECK(files.json("hrl info repaired.hrl --json")["sealed_by"] == "source");
    CHECK(files.shell("hrl verify repaired.hrl" + keys).status == 0);
    CHECK(files.shell("hrl records repaired.hrl 2>/dev/null").output ==
          files.shell("hrl records torn.hrl 2>/dev/null").output);
}

TEST_CASE("hrl explains every verb, with examples") {
    Files files;
    for (const char* verb : {"convert", "repair", "diff", "stats"}) {
        const Run run = files.shell(std::string("hrl ") + verb + " --help");
        CHECK(run.status == 0);
        CHECK(has(run, "Examples:"));
        CHECK(files.shell(std::string("hrl ") + verb).status == 2);
    }
    CHECK(has(files.shell("hrl --help"), "3 the journals that were compared differ"));
}

TEST_CASE("a terminal gets colours, unless it does not want them") {
    Files files;
    files.write("0001.hrl", sample_segment());
    CHECK(has(files.shell("script -qec 'hrl verify 0001.hrl' /dev/null"), "\x1b[32mok"));
    CHECK_FALSE(
        has(files.shell("NO_COLOR=1 script -qec 'hrl verify 0001.hrl' /dev/null"), "\x1b[3"));
}

TEST_CASE("the examples of the man page do what it says") {
    std::ifstream page(HERALD_SOURCE_DIR "/packaging/man/hrl.1");
    REQUIRE(page);
    std::vector<std::string> commands;
    bool in_examples = false;
    for (std::string line; std::getline(page, line);) {
        if (line.starts_with(".SH")) in_examples = line == ".SH EXAMPLES";
        if (!in_examples || !line.starts_with("hrl ")) continue;
        for (size_t at; (at = line.find("\\-")) != std::string::npos;) line.erase(at, 1);
        for (size_t at; (at = line.find("\\(aq")) != std::string::npos;) line.replace(at, 4, "'");
        commands.push_back(line);
    }
    REQUIRE(commands.size() >= 20);
    // One directory, in the order of the page; the files that it speaks of.
    Files files;
    const auto records = segments::sample_records(5, 90, kDisk);
    Uuid previous;
    for (size_t i = 0; i < 3; ++i) {
        SegmentHeader header = segments::sample_header(4096, 1 + i * 30);
        header.segment = segments::sample_id(uint8_t(0x70 + i));
        header.previous_segment = previous;
        previous = header.segment;
        const std::vector<segments::OwnedRecord> part(records.begin() + ptrdiff_t(i * 30),
                                                      records.begin() + ptrdiff_t(i * 30 + 30));
        files.write("000" + std::to_string(i + 1) + ".hrl",
                    segments::write_segment(header, part).bytes);
    }
    const Bytes whole = files.read("0001.hrl");
    std::filesystem::create_directory(files.at("incoming"));
    files.write("incoming/torn.hrl", Bytes(whole.begin(), whole.end() - 100));
    std::filesystem::create_directory(files.at("keys"));
    REQUIRE(replace_file(files.at("passphrase"), as_bytes("correct horse\n"), 0600));
    for (const std::string& command : commands) {
        const Run run = files.shell(command);
        INFO(command << "\n" << run.output);
        CHECK(run.status == 0);
    }
    CHECK(files.exists("disk.img"));
}
