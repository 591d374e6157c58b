// SPDX-License-Identifier: Apache-2.0
// What the hrl program prints, where it goes, and what memory that takes.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "tests/unit/hrl/sample_layers.h"
#include "tests/unit/hrl/tool_directory.h"
#include "user/hrl/convert.h"

using namespace herald;
using namespace herald::hrl;
using namespace herald::hrl::test;

namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

// Writes of 4 KiB that do not compress, to a file as they come.
uint64_t write_large_segment(const std::filesystem::path& path, uint64_t records) {
    auto sink = file_sink(path);
    REQUIRE(sink);
    SegmentStream stream(SegmentWriter(sample_header(64 << 10)), **sink);
    std::mt19937_64 random(1);
    Bytes data(4096);
    for (uint64_t i = 0; i < records; ++i) {
        for (size_t at = 0; at < data.size(); at += 8)
            store_le(data.data() + at, uint64_t(random()));
        Record record;
        record.position = i + 1;
        record.offset = i * 7 % 200 * 4096;
        record.length = data.size();
        record.data = data;
        REQUIRE(stream.append(record));
    }
    REQUIRE(stream.finish());
    return (*sink)->size();
}

// The most memory that a command had in use, in bytes; its output is thrown away.
uint64_t peak_bytes(const std::string& command) {
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        ::execl("/bin/sh", "sh", "-c", ("exec " + command + " >/dev/null").c_str(), nullptr);
        ::_exit(127);
    }
    int status = 0;
    struct rusage usage {};
    REQUIRE(::wait4(child, &status, 0, &usage) == child);
    INFO(command);
    REQUIRE(WIFEXITED(status));
    REQUIRE(WEXITSTATUS(status) == 0);
    return uint64_t(usage.ru_maxrss) * 1024;
}

}  // namespace

TEST_CASE("hrl says when what it prints cannot be written, with a status of its own") {
    ToolDirectory files;
    const auto few = sample_records(3, 20, 1 << 20);
    files.write("few.hrl", write_segment(sample_header(4096), few).bytes);
    files.write("many.hrl",
                write_segment(sample_header(4096), sample_records(3, 5000, 1 << 20)).bytes);
    for (const std::string file : {"few.hrl", "many.hrl"}) {
        for (const std::string verb : {"records ", "info ", "verify ", "stats "}) {
            for (const std::string json : {"", " --json", " --help"}) {
                files.ends("hrl " + verb + file + json + " >/dev/full", 2, "No space left");
            }
        }
        files.ends("hrl diff " + file + " " + file + " >/dev/full", 2, "No space left");
        files.ends("hrl info " + file + " --blocks >/dev/full", 2, "No space left");
    }
    files.ends("hrl apply few.hrl --to disk.img >/dev/full", 2, "No space left");
    files.ends("hrl records few.hrl >&-", 2, "standard output");
    // Errors that cannot be printed end nothing early.
    CHECK(files.shell("hrl verify nowhere.hrl few.hrl 2>/dev/full").has("few.hrl: ok"));
    CHECK(files.shell("hrl info nowhere.hrl 2>/dev/full").status == 2);
}

TEST_CASE("hrl is coloured on a terminal with every verb that shows something, and nowhere else") {
    ToolDirectory files;
    const Bytes bytes = write_segment(sample_header(4096), sample_records(3, 60, 1 << 20)).bytes;
    files.write("a.hrl", bytes);
    files.write("torn.hrl", Bytes(bytes.begin(), bytes.begin() + ptrdiff_t(bytes.size() / 2)));
    const auto coloured = [&](const std::string& command, const std::string& colour) {
        const std::string on_terminal = "script -qec '" + command + "' /dev/null";
        CHECK(files.shell(on_terminal).has("\x1b[" + colour + "m"));
        CHECK_FALSE(files.shell("NO_COLOR=1 " + on_terminal).has("\x1b[" + colour + "m"));
        CHECK_FALSE(files.shell(command).has("\x1b["));
    };
    coloured("hrl info torn.hrl", "31");
    coloured("hrl records a.hrl", "34");
    coloured("hrl stats a.hrl", "34");
    coloured("hrl verify a.hrl", "32");
    coloured("hrl verify torn.hrl", "31");
    // JSON is for programs, on a terminal, too.
    for (const std::string verb : {"info", "records", "stats", "verify"}) {
        const auto json = files.shell("script -qec 'hrl " + verb + " a.hrl --json' /dev/null");
        CHECK_FALSE(json.has("\x1b["));
    }
}

TEST_CASE("hrl verify of a damaged and a missing file ends as the man page says") {
    ToolDirectory files;
    Bytes bytes = write_segment(sample_header(4096), sample_records(3, 60, 1 << 20)).bytes;
    bytes[bytes.size() / 2] ^= std::byte{1};
    files.write("damaged.hrl", bytes);
    files.ends("hrl verify damaged.hrl", 1, "DAMAGED");
    files.ends("hrl verify damaged.hrl nowhere.hrl", 2, "DAMAGED");
    files.ends("hrl verify nowhere.hrl damaged.hrl", 2, "not verified");
    files.ends("hrl --help", 0, "2 takes precedence");
    std::ifstream page(HERALD_SOURCE_DIR "/packaging/man/hrl.1");
    const std::string text((std::istreambuf_iterator<char>(page)), {});
    const size_t statuses = text.find(".SH EXIT STATUS");
    REQUIRE(statuses != std::string::npos);
    CHECK(text.find("takes precedence", statuses) != std::string::npos);
}

TEST_CASE("hrl diff needs a folder for scratch files only where it sorts in one") {
    ToolDirectory files;
    const auto records = sample_records(81, 60, 1 << 20, 1, 32);
    files.write("segment.hrl", write_segment(sample_header(4096), records).bytes);
    const SegmentHeader header = layer_header(4096);
    files.write("layer.hrl", write_layer(header, sorted_for(header, records)).bytes);
    files.ends("TMPDIR=/nonexistent hrl diff segment.hrl segment.hrl", 0, "the same effect");
    files.ends("TMPDIR=/nonexistent hrl diff layer.hrl segment.hrl", 0, "the same effect");
    // More than fits into memory.
    std::vector<OwnedRecord> large;
    for (uint64_t i = 0; i < 20000; ++i) {
        Record record;
        record.position = 20000 - i;
        record.offset = i * 4096;
        record.length = 4096;
        const Bytes data(4096, std::byte(i));
        record.data = data;
        large.emplace_back(record);
    }
    SegmentHeader wide = layer_header(64 << 10);
    wide.disk_bytes = 20000 * 4096;
    files.write("large.hrl", write_layer(wide, large).bytes);
    files.ends("TMPDIR=/nonexistent hrl diff large.hrl large.hrl", 2, "/nonexistent");
    files.ends("TMPDIR=. hrl diff large.hrl large.hrl", 0, "the same effect");
}

TEST_CASE("hrl lists and verifies a segment larger than the memory it may use") {
    ToolDirectory files;
    constexpr uint64_t kRecords = 40000;
    const uint64_t bytes = write_large_segment(files.at("large.hrl"), kRecords);
    CHECK(bytes > 150u << 20);
    if (!kSanitized) {
        // Libraries and code included.
        const std::string limited = "ulimit -v 65536; hrl ";
        files.ends(limited + "records large.hrl | wc -l", 0, std::to_string(kRecords));
        files.ends(limited + "records --json large.hrl | grep -c position", 0,
                   std::to_string(kRecords));
        files.ends(limited + "verify large.hrl", 0, "40000 records");
        files.ends(limited + "info --blocks large.hrl | tail -1", 0, "write");
        files.ends(limited + "stats large.hrl", 0, "40000");
        for (const std::string verb : {"records", "verify", "stats"}) {
            const std::string hrl = "'" HERALD_BIN_DIR "/hrl' " + verb + " '";
            CHECK(peak_bytes(hrl + files.at("large.hrl").native() + "'") < 32u << 20);
        }
    }
}
