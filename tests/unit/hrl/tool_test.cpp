// SPDX-License-Identifier: Apache-2.0
// The hrl program, run as a user runs it.

#include <nlohmann/json.hpp>

#include "tests/shell.h"
#include "tests/temp_dir.h"
#include "tests/unit/hrl/sample_segments.h"
#include "user/base/file.h"

using namespace herald;
using namespace herald::hrl;
using namespace herald::hrl::test;

namespace {

using herald::test::Run;

Run run_hrl(const std::filesystem::path& dir, const std::string& arguments) {
    return herald::test::run_shell("cd '" + dir.native() + "' && '" HERALD_BIN_DIR "/hrl' " +
                                   arguments + " 2>&1");
}

bool has(const Run& run, const std::string& text) { return run.has(text); }

// Three segments of one stream in a directory: a.hrl is the last, c.hrl the first, so that the
// order of names is not the order of the stream.
struct Journal {
    herald::test::TempDir dir;
    std::vector<OwnedRecord> records = sample_records(21, 90, 1 << 20);

    Journal() {
        Uuid previous;
        for (const int i : {0, 1, 2}) {
            SegmentHeader header = sample_header(4096, 1 + uint64_t(i) * 30);
            header.segment = sample_id(uint8_t(0x70 + i));
            header.previous_segment = previous;
            previous = header.segment;
            const std::vector<OwnedRecord> part(records.begin() + i * 30,
                                                records.begin() + i * 30 + 30);
            const std::string name = std::string(1, char('c' - i)) + ".hrl";
            REQUIRE(replace_file(dir.path() / name, write_segment(header, part).bytes));
        }
    }
    // The disk after the record at position `until`.
    Bytes image_at(uint64_t until) const {
        Bytes disk(1 << 20);
        for (size_t i = 0; i < until; ++i) {
            const Record record = records[i].view();
            const auto at = disk.begin() + ptrdiff_t(record.offset);
            if (record.kind == RecordKind::write) {
                std::copy(record.data.begin(), record.data.end(), at);
            } else if (record.kind == RecordKind::zeroes || record.kind == RecordKind::discard ||
                       record.kind == RecordKind::secure_erase) {
                std::fill_n(at, record.length, std::byte{0});
            }
        }
        return disk;
    }
    Bytes read(const char* name) const {
        auto bytes = read_file(dir.path() / name, 1 << 24);
        REQUIRE(bytes);
        return *bytes;
    }
};

}  // namespace

TEST_CASE("hrl explains itself and every verb, with examples") {
    for (const char* verb : {"", "info ", "records ", "verify ", "apply "}) {
        const Run run = run_hrl("/", std::string(verb) + "--help");
        CHECK(run.status == 0);
        CHECK(has(run, "Examples:"));
    }
    CHECK(run_hrl("/", "").status == 2);
    CHECK(run_hrl("/", "info").status == 2);
    CHECK(run_hrl("/", "unknown x").status == 2);
    CHECK(run_hrl("/", "info /nowhere.hrl").status == 2);
}

TEST_CASE("hrl info and records show a segment as text and JSON") {
    Journal journal;
    CHECK(has(run_hrl(journal.dir.path(), "info b.hrl"), "30, positions 31 to 60"));
    const Run info = run_hrl(journal.dir.path(), "info b.hrl --json --blocks");
    REQUIRE(info.status == 0);
    const auto facts = nlohmann::json::parse(info.output);
    CHECK(facts["first_position"] == 31);
    CHECK(facts["last_position"] == 60);
    CHECK(facts["whole"] == true);
    CHECK(facts["blocks"].size() > 2);

    const Run list = run_hrl(journal.dir.path(), "records b.hrl --json");
    REQUIRE(list.status == 0);
    const auto records = nlohmann::json::parse(list.output);
    REQUIRE(records.size() == 30);
    for (size_t i = 0; i < 30; ++i) {
        const Record record = journal.records[30 + i].view();
        CHECK(records[i]["position"] == record.position);
        CHECK(records[i]["kind"] == to_string(record.kind));
        CHECK(records[i]["offset"] == record.offset);
        CHECK(records[i]["length"] == record.length);
        if (record.kind == RecordKind::tag) CHECK(records[i]["name"] == "before the upgrade");
    }
    const Run text = run_hrl(journal.dir.path(), "records b.hrl");
    CHECK(text.status == 0);
    CHECK(std::count(text.output.begin(), text.output.end(), '\n') == 30);
}

TEST_CASE("hrl verify names every damaged file and looks at the others") {
    Journal journal;
    CHECK(run_hrl(journal.dir.path(), "verify *.hrl").status == 0);
    Bytes bytes = journal.read("b.hrl");
    bytes[700] ^= std::byte{1};
    REQUIRE(replace_file(journal.dir.path() / "b.hrl", bytes));
    const Run run = run_hrl(journal.dir.path(), "verify *.hrl");
    CHECK(run.status == 1);
    CHECK(has(run, "b.hrl: DAMAGED"));
    CHECK(has(run, "a.hrl: ok"));
    CHECK(has(run, "c.hrl: ok"));
    const auto json =
        nlohmann::json::parse(run_hrl(journal.dir.path(), "verify a.hrl b.hrl --json").output);
    CHECK(json[0]["ok"] == true);
    CHECK(json[1]["ok"] == false);
    CHECK(json[1]["damaged"] == true);
    CHECK(run_hrl(journal.dir.path(), "verify a.hrl nowhere.hrl").status == 2);
}

TEST_CASE("hrl shows a torn segment up to its last whole block and says what is lost") {
    Journal journal;
    const Bytes bytes = journal.read("c.hrl");
    REQUIRE(
        replace_file(journal.dir.path() / "torn.hrl", ByteView(bytes).first(bytes.size() * 2 / 3)));
    for (const char* verb : {"info", "records", "verify"}) {
        const Run run = run_hrl(journal.dir.path(), std::string(verb) + " torn.hrl");
        CHECK(run.status == 1);
        CHECK(has(run, "are lost"));
    }
    CHECK(run_hrl(journal.dir.path(), "apply torn.hrl --to x.img").status == 1);
    CHECK_FALSE(std::filesystem::exists(journal.dir.path() / "x.img"));
}

TEST_CASE("hrl apply makes the image of the stream, whole or up to a position") {
    Journal journal;
    CHECK(run_hrl(journal.dir.path(), "apply *.hrl --to all.img").status == 0);
    CHECK(journal.read("all.img") == journal.image_at(90));
    for (const uint64_t until : {1, 30, 31, 47, 90}) {
        const std::string at = std::to_string(until);
        CHECK(run_hrl(journal.dir.path(), "apply *.hrl --to " + at + ".img --until " + at).status ==
              0);
        CHECK(journal.read((at + ".img").c_str()) == journal.image_at(until));
    }
    // In two steps, the second onto what the first made.
    CHECK(run_hrl(journal.dir.path(), "apply c.hrl --to steps.img").status == 0);
    CHECK(run_hrl(journal.dir.path(), "apply a.hrl b.hrl --to steps.img").status == 2);
    CHECK(run_hrl(journal.dir.path(), "apply a.hrl b.hrl --to steps.img --force").status == 0);
    CHECK(journal.read("steps.img") == journal.image_at(90));
}

TEST_CASE("hrl apply refuses gaps, repetitions, foreign segments and positions it does not have") {
    Journal journal;
    SegmentHeader foreign = sample_header(4096, 31);
    foreign.disk = sample_id(0x99);
    const std::vector<OwnedRecord> part(journal.records.begin() + 30, journal.records.begin() + 60);
    REQUIRE(replace_file(journal.dir.path() / "foreign.hrl", write_segment(foreign, part).bytes));
    SegmentHeader branch = sample_header(4096, 31);
    branch.previous_segment = sample_id(0x98);
    REQUIRE(replace_file(journal.dir.path() / "branch.hrl", write_segment(branch, part).bytes));
    const auto refused = [&](const std::string& arguments, const char* why) {
        const Run run = run_hrl(journal.dir.path(), "apply " + arguments + " --to x.img");
        INFO(run.output);
        CHECK(run.status == 2);
        CHECK(has(run, why));
        CHECK_FALSE(std::filesystem::exists(journal.dir.path() / "x.img"));
        CHECK_FALSE(std::filesystem::exists(journal.dir.path() / "x.img.part"));
    };
    refused("a.hrl c.hrl", "ends at position 30");
    refused("b.hrl b.hrl c.hrl", "each once");
    refused("c.hrl foreign.hrl", "different disks");
    refused("c.hrl branch.hrl", "follows segment");
    refused("b.hrl", "position 1");
    refused("a.hrl b.hrl c.hrl --until 91", "positions 1 to 90");

    Bytes bytes = journal.read("b.hrl");
    bytes[900] ^= std::byte{1};
    REQUIRE(replace_file(journal.dir.path() / "b.hrl", bytes));
    CHECK(run_hrl(journal.dir.path(), "apply a.hrl b.hrl c.hrl --to x.img").status == 1);
    CHECK_FALSE(std::filesystem::exists(journal.dir.path() / "x.img"));
}

TEST_CASE("hrl apply follows a disk that was resized between two segments") {
    herald::test::TempDir dir;
    // Shrunk and grown again while nobody was there to record it: only the headers say so.
    const uint64_t sizes[] = {1 << 20, 256 << 10, 512 << 10};
    Uuid previous;
    uint64_t position = 1;
    for (const uint64_t disk_bytes : sizes) {
        SegmentHeader header = sample_header(4096, position);
        header.disk_bytes = disk_bytes;
        header.segment = sample_id(uint8_t(0x80 + position));
        header.previous_segment = previous;
        previous = header.segment;
        SegmentWriter writer(header);
        const Bytes data(4096, std::byte(position));
        Record record;
        record.position = position;
        record.offset = disk_bytes - data.size();
        record.length = data.size();
        record.data = data;
        REQUIRE(writer.append(record));
        auto segment = std::move(writer).finish();
        REQUIRE(segment);
        REQUIRE(replace_file(dir.path() / (std::to_string(position) + ".hrl"), segment->bytes));
        ++position;
    }
    const auto applied = [&](const char* files, const char* image) {
        const Run run = run_hrl(dir.path(), std::string("apply ") + files + " --to " + image);
        INFO(run.output);
        CHECK(run.status == 0);
        auto bytes = read_file(dir.path() / image, 1 << 24);
        REQUIRE(bytes);
        return *bytes;
    };
    Bytes shrunk(256 << 10);
    std::fill(shrunk.end() - 4096, shrunk.end(), std::byte{2});
    CHECK(applied("1.hrl 2.hrl", "shrunk.img") == shrunk);
    Bytes grown = shrunk;
    grown.resize(512 << 10);
    std::fill(grown.end() - 4096, grown.end(), std::byte{3});
    CHECK(applied("1.hrl 2.hrl 3.hrl", "grown.img") == grown);
}
