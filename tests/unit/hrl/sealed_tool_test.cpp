// SPDX-License-Identifier: Apache-2.0
// The hrl program, its files sealed: a plain file does not pass for a sealed one, and a file that
// was read without its key does not pass for a proven one.
#include "tests/unit/hrl/sample_layers.h"
#include "tests/unit/hrl/tool_directory.h"
#include "tests/unit/hrl/v2/sample_logs.h"

using namespace herald;
using namespace herald::hrl;
using namespace herald::hrl::test;

namespace {

constexpr uint64_t kDisk = 1 << 20;

// Two segments of one stream, each sealed and plain: first.hrl, first_plain.hrl, second.hrl, ...
struct Files : ToolDirectory {
    ToolKeys keys{*this};
    std::vector<OwnedRecord> records = sample_records(17, 60, kDisk);

    Files() {
        Uuid previous;
        for (const size_t i : {0, 1}) {
            SegmentHeader header = sample_header(4096, 1 + i * 30);
            header.segment = sample_id(uint8_t(0x70 + i));
            header.previous_segment = previous;
            previous = header.segment;
            const std::vector<OwnedRecord> part(records.begin() + ptrdiff_t(i * 30),
                                                records.begin() + ptrdiff_t(i * 30 + 30));
            const std::string name = i == 0 ? "first" : "second";
            write(name + ".hrl", write_sealed(header, part, keys.key).bytes);
            write(name + "_plain.hrl", write_segment(header, part).bytes);
        }
        write("log.hrl", v2::test::build_log(v2::test::sample_writes(9, 20, kDisk)));
    }
};

}  // namespace

TEST_CASE("hrl given a key refuses what is not sealed, with every verb, unless it is allowed") {
    Files files;
    const std::string keys = files.keys.options;
    for (const std::string file : {"first_plain.hrl", "log.hrl"}) {
        const std::string format = file == "log.hrl" ? "v3" : "v2";
        for (const std::string& verb :
             {"info " + file, "records " + file, "stats " + file, "verify " + file,
              "apply " + file + " --to x", "convert " + file + " --to x --format " + format,
              "repair " + file + " --to x", "diff " + file + " " + file,
              "diff first.hrl " + file}) {
            files.ends("hrl " + verb + keys, 2, "--allow-plain");
            CHECK_FALSE(files.exists("x"));
        }
        for (const std::string verb : {"info ", "records ", "stats ", "verify "}) {
            files.ends("hrl " + verb + file + keys + " --allow-plain", 0, "");
        }
    }
    files.ends("hrl verify first.hrl second.hrl" + keys, 0, "first.hrl: ok");
    const auto json = files.json("hrl verify first.hrl first_plain.hrl --json" + keys, 2);
    CHECK(json[0]["ok"] == true);
    CHECK(json[1]["ok"] == false);
    CHECK(json[1]["damaged"] == false);
    files.ends("hrl apply first.hrl second.hrl --to sealed.img" + keys, 0, "");
    files.ends("hrl apply first_plain.hrl second_plain.hrl --to plain.img --allow-plain" + keys, 0,
               "");
    CHECK(files.read("sealed.img") == files.read("plain.img"));
}

TEST_CASE("hrl refuses a chain in which some files are sealed and some are not") {
    Files files;
    const std::string keys = files.keys.options;
    for (const std::string pair : {"first.hrl second_plain.hrl", "second.hrl first_plain.hrl"}) {
        files.ends("hrl apply " + pair + " --to x" + keys, 2, "not sealed");
        files.ends("hrl convert " + pair + " --to x --format v2" + keys, 2, "not sealed");
        files.ends("hrl convert " + pair + " --to x --format v2 --dry-run" + keys, 2, "not sealed");
        // Also where nobody has the key.
        files.ends("hrl verify " + pair, 2, "not sealed");
        CHECK(files.json("hrl verify --json " + pair, 2)[1]["ok"] == false);
        files.ends("hrl verify --allow-plain " + pair, 0, "ok");
        CHECK_FALSE(files.exists("x"));
    }
    // The plain one first: the order of the command line does not matter.
    files.ends("hrl verify first_plain.hrl second.hrl", 2, "not sealed");
    // Of another disk: no mixture.
    SegmentHeader other = sample_header(4096);
    other.disk = sample_id(0x77);
    files.write("other.hrl", write_segment(other, files.records).bytes);
    files.ends("hrl verify first.hrl other.hrl", 0, "other.hrl: ok");
    files.ends("hrl apply first.hrl second_plain.hrl --to mixed.img --allow-plain" + keys, 0, "");
    files.ends("hrl apply first.hrl second.hrl --to sealed.img" + keys, 0, "");
    CHECK(files.read("mixed.img") == files.read("sealed.img"));
}

TEST_CASE("hrl says of what it converts that the seal is lost, wherever the sealed file stands") {
    Files files;
    const std::string keys = files.keys.options + " --allow-plain";
    files.ends("hrl convert first_plain.hrl second.hrl --to a --format v2" + keys, 0, "the seal");
    files.ends("hrl convert first.hrl second_plain.hrl --to b --format v2" + keys, 0, "the seal");
    const auto run =
        files.shell("hrl convert first_plain.hrl second_plain.hrl --to c --format v2" + keys);
    CHECK(run.status == 0);
    CHECK_FALSE(run.has("the seal"));
}

TEST_CASE("hrl given keys does not take a sealed file whose key is not among them") {
    Files files;
    // Somebody without the key of the machine makes a file that names a key of his own.
    const ToolKeys stranger(files, "stranger_");
    files.write("forged.hrl", write_sealed(sample_header(4096), files.records, stranger.key).bytes);
    for (const std::string verb : {"verify", "info", "records", "stats"}) {
        files.ends("hrl " + verb + " forged.hrl" + files.keys.options, 2,
                   to_string(stranger.key.id));
        files.ends("hrl " + verb + " forged.hrl" + files.keys.options + " --allow-plain", 2,
                   to_string(stranger.key.id));
        // Without any key it is looked at, and not vouched for.
        files.ends("hrl " + verb + " forged.hrl", 0, "nothing of it is authenticated");
    }
    const auto json = files.json("hrl verify --json first.hrl forged.hrl" + files.keys.options, 2);
    CHECK(json[0]["ok"] == true);
    CHECK(json[1]["ok"] == false);
}

TEST_CASE("hrl says that nothing of a sealed file is authenticated that was read without its key") {
    Files files;
    // Also where it holds no data that could be sealed.
    std::vector<OwnedRecord> zeroes;
    for (uint64_t i = 0; i < 3; ++i) {
        Record record;
        record.kind = RecordKind::zeroes;
        record.position = 1 + i;
        record.offset = 4096 * i;
        record.length = 4096;
        zeroes.emplace_back(record);
    }
    files.write("zeroes.hrl", write_sealed(sample_header(4096), zeroes, files.keys.key).bytes);
    const std::string note = "nothing of it is authenticated";
    for (const std::string file : {"first.hrl", "zeroes.hrl"}) {
        for (const std::string verb : {"verify ", "info ", "records ", "stats "}) {
            files.ends("hrl " + verb + file, 0, note);
            const auto opened = files.shell("hrl " + verb + file + files.keys.options);
            CHECK(opened.status == 0);
            CHECK_FALSE(opened.has(note));
            files.ends("hrl " + verb + file + " --json", 0, note);
            CHECK_FALSE(
                files.shell("hrl " + verb + file + " --json" + files.keys.options).has(note));
        }
        for (const std::string verb : {"info ", "stats "}) {
            CHECK(files.json("hrl " + verb + file + " --json")["notices"].size() == 1);
        }
        CHECK(files.json("hrl verify " + file + " --json")[0]["notices"].size() == 1);
        CHECK(files.json("hrl records " + file + " --json").is_array());
        // The listing itself stays one record a line.
        CHECK_FALSE(files.shell("hrl records " + file + " 2>/dev/null").has(note));
    }
    CHECK(files.json("hrl info first_plain.hrl --json")["notices"].empty());
}
