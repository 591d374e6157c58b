// SPDX-License-Identifier: Apache-2.0
// Every verb of the hrl program, given layers.
#include <nlohmann/json.hpp>

#include "tests/shell.h"
#include "tests/temp_dir.h"
#include "tests/unit/hrl/sample_layers.h"
#include "user/base/file.h"
#include "user/seal/machine_key.h"
#include "user/seal/root_key.h"

using namespace herald;
using namespace herald::hrl;
using namespace herald::hrl::test;

namespace {

using herald::test::Run;

constexpr uint64_t kDisk = 1 << 20;
constexpr uint64_t kLast = 92;

// Not by the test framework, which would print both, for minutes.
bool same(const Bytes& a, const Bytes& b) { return a == b; }

// One stream as segment.hrl and as layer.hrl; the disk after it as image.hrl; what comes then as
// next.hrl.
struct Files {
    herald::test::TempDir dir;
    std::vector<OwnedRecord> records;
    SegmentHeader delta = layer_header(4096);
    SegmentHeader image = layer_header(4096, Contents::image_layer);

    Files() {
        // The whole disk is zero first; in the middle it shrinks and grows again.
        records = sample_records(81, kLast, kDisk, 1, 32);
        const auto replace = [&](size_t at, RecordKind kind, uint64_t length) {
            records[at].data.clear();
            Record& record = records[at].record;
            record.kind = kind;
            record.offset = 0;
            record.length = length;
        };
        replace(0, RecordKind::zeroes, kDisk);
        replace(40, RecordKind::resize, kDisk / 2);
        replace(41, RecordKind::resize, kDisk);
        put("segment.hrl", write_segment(sample_header(4096), records).bytes);
        delta.segment = sample_id(0x44);
        put("layer.hrl", write_layer(delta, sorted_for(delta, records), kLast).bytes);
        REQUIRE(run("apply segment.hrl --to segment.img").status == 0);
        image.segment = sample_id(0x45);
        image.first_position = 50;
        put("image.hrl", write_layer(image, image_records(get("segment.img"), kLast), kLast).bytes);
        SegmentHeader next = sample_header(4096, kLast + 1);
        next.segment = sample_id(0x46);
        next.previous_segment = sample_id(0x33);
        put("next.hrl", write_segment(next, sample_records(82, 30, kDisk, kLast + 1)).bytes);
    }
    void put(const std::string& name, const Bytes& bytes) const {
        REQUIRE(replace_file(dir.path() / name, bytes));
    }
    Bytes get(const std::string& name) const {
        auto bytes = read_file(dir.path() / name, 1 << 26);
        REQUIRE(bytes);
        return *bytes;
    }
    Run run(const std::string& arguments) const {
        return herald::test::run_shell("cd '" + dir.path().native() +
                                       "' && ( '" HERALD_BIN_DIR "/hrl' " + arguments + " ) 2>&1");
    }
    nlohmann::json json(const std::string& arguments) const {
        const Run made = run(arguments + " --json");
        INFO(made.output);
        REQUIRE(made.status == 0);
        return nlohmann::json::parse(made.output);
    }
    void refused(const std::string& arguments, const std::string& why) const {
        const Run made = run(arguments);
        INFO(arguments << ": " << made.output);
        CHECK(made.status == 2);
        CHECK(made.has(why));
    }
};

}  // namespace

TEST_CASE("hrl info, records, verify and stats say of a layer what it is") {
    Files files;
    const auto info = files.json("info layer.hrl");
    CHECK(info["contents"] == "delta layer");
    CHECK(info["record_order"] == "block");
    CHECK(info["granule_bytes"] == kGranule);
    CHECK(info["first_position"] == 1);
    CHECK(info["last_position"] == kLast);
    CHECK(files.json("info image.hrl")["contents"] == "image layer");
    CHECK(files.json("info segment.hrl")["record_order"] == "position");
    const Run text = files.run("info layer.hrl");
    CHECK(text.has("delta layer, records by block of 4.0 KiB"));
    CHECK(text.has("positions 1 to 92"));

    const auto expected = sorted_for(files.delta, files.records);
    const auto records = files.json("records layer.hrl");
    REQUIRE(records.size() == expected.size());
    for (size_t i = 0; i < expected.size(); ++i) {
        CHECK(records[i]["position"] == expected[i].record.position);
        CHECK(records[i]["offset"] == expected[i].record.offset);
    }
    const auto verified = files.json("verify layer.hrl image.hrl");
    CHECK(verified[0]["ok"] == true);
    CHECK(verified[0]["last_position"] == kLast);
    CHECK(verified[0]["records"] == expected.size());
    CHECK(verified[1]["first_position"] == 50);
    const auto counted = files.json("stats layer.hrl");
    CHECK(counted["kinds"]["write"]["bytes"] ==
          files.json("stats segment.hrl")["kinds"]["write"]["bytes"]);
}

TEST_CASE("hrl records reads only the blocks that its filters may be about") {
    const uint64_t seed = seed_from_environment();
    INFO("HERALD_SEED=" << seed);
    Files files;
    // Smaller blocks, and a layer by position with some positions left out.
    const auto stream = sample_records(seed, 200, kDisk, 5, 16);
    files.put("segment.hrl", write_segment(sample_header(1024, 5), stream).bytes);
    const SegmentHeader sorted = layer_header(1024);
    files.put("layer.hrl", write_layer(sorted, sorted_for(sorted, stream)).bytes);
    SegmentHeader thinned = sample_header(1024, 2);
    thinned.contents = Contents::delta_layer;
    std::vector<OwnedRecord> some;
    for (size_t i = 0; i < stream.size(); i += 1 + i % 3) some.push_back(stream[i]);
    files.put("thinned.hrl", write_layer(thinned, some, 500).bytes);

    std::mt19937_64 random(seed);
    for (const std::string name : {"segment.hrl", "layer.hrl", "thinned.hrl"}) {
        const auto all = files.json("records " + name);
        for (int round = 0; round < 8; ++round) {
            const uint64_t first = random() % 200, last = first + random() % 20;
            const uint64_t begin = random() % kDisk, end = begin + 1 + random() % 50'000;
            std::string filter;
            if (round % 2 == 0) filter += fmt::format(" --positions {}-{}", first, last);
            if (round % 4 != 0) filter += fmt::format(" --range {}+{}", begin, end - begin);
            auto wanted = nlohmann::json::array();
            for (const auto& record : all) {
                const uint64_t position = record["position"], offset = record["offset"];
                const uint64_t length = record["kind"] == "resize" ? 0 : uint64_t(record["length"]);
                if (round % 2 == 0 && (position < first || position > last)) continue;
                const bool touches = length != 0 && offset < end && offset + length > begin;
                if (round % 4 != 0 && !touches) continue;
                wanted.push_back(record);
            }
            INFO(name << filter);
            CHECK(files.json("records " + name + filter) == wanted);
        }
    }

    // Damage in a block is noticed by who asks for something in it, and by verify.
    Bytes bytes = files.get("segment.hrl");
    auto reader = SegmentReader::open(memory_source(bytes, "segment.hrl"));
    REQUIRE(reader);
    const auto blocks = reader->blocks();
    REQUIRE(blocks.size() > 20);
    const IndexEntryDisk& middle = blocks[10];
    const uint64_t before = middle.first_position - 1;
    const uint64_t after = middle.first_position + middle.record_count;
    bytes[middle.file_offset + 50] ^= std::byte{1};
    files.put("damaged.hrl", bytes);
    const auto status = [&](const std::string& filter) {
        return files.run("records damaged.hrl " + filter).status;
    };
    CHECK(status("") == 1);
    CHECK(status(fmt::format("--positions -{}", before)) == 0);
    CHECK(status(fmt::format("--positions {}-", after)) == 0);
    CHECK(status(fmt::format("--positions {}", middle.first_position)) == 1);
    CHECK(status(fmt::format("--positions {}-{}", before, after)) == 1);
    CHECK(status("--since 2023-11-14T22:13:21Z") == 0);
    CHECK(status("--before 2023-11-14T22:13:20Z") == 0);
    CHECK(status(fmt::format("--range {}+512", middle.disk_offset_min)) == 1);
    CHECK(files.run("verify damaged.hrl").status == 1);
}

TEST_CASE("hrl apply makes of a layer the disk that its stream makes") {
    Files files;
    const Bytes disk = files.get("segment.img");
    REQUIRE(files.run("apply layer.hrl --to layer.img").status == 0);
    CHECK(same(files.get("layer.img"), disk));
    // The whole disk, wherever it begins, and whatever was there.
    REQUIRE(files.run("apply image.hrl --to image.img").status == 0);
    CHECK(same(files.get("image.img"), disk));
    files.put("old.img", Bytes(kDisk, std::byte{0x77}));
    REQUIRE(files.run("apply image.hrl --to old.img --force").status == 0);
    CHECK(same(files.get("old.img"), disk));
    // What comes after it, too.
    REQUIRE(files.run("apply segment.hrl next.hrl --to both.img").status == 0);
    for (const std::string layer : {"layer", "image"}) {
        const Run run = files.run("apply next.hrl " + layer + ".hrl --to " + layer + "2.img");
        INFO(run.output);
        REQUIRE(run.status == 0);
        CHECK(same(files.get(layer + "2.img"), files.get("both.img")));
    }
}

TEST_CASE("hrl apply refuses a moment within a layer, and an image that is not the first") {
    Files files;
    files.refused("apply layer.hrl --to x.img --until 91", "makes the disk at position 92 only");
    CHECK(files.run("apply layer.hrl next.hrl --to at.img --until 92").status == 0);
    CHECK(same(files.get("at.img"), files.get("segment.img")));
    SegmentHeader late = files.image;
    late.first_position = kLast + 1;
    files.put(
        "late.hrl",
        write_layer(late, image_records(files.get("segment.img"), kLast + 5), kLast + 5).bytes);
    files.refused("apply layer.hrl late.hrl --to x.img", "leave out what comes before it");
    files.refused("apply layer.hrl segment.hrl --to x.img", "each once");
    CHECK_FALSE(std::filesystem::exists(files.dir.path() / "x.img"));
}

TEST_CASE("hrl diff compares what layers leave with what segments leave") {
    Files files;
    for (const char* pair : {"layer.hrl segment.hrl", "segment.hrl layer.hrl",
                             "image.hrl segment.hrl", "layer.hrl image.hrl"}) {
        const Run run = files.run(std::string("diff ") + pair);
        INFO(pair << ": " << run.output);
        CHECK(run.status == 0);
    }
    auto changed = files.records;
    Record last;
    last.position = kLast + 1;
    last.offset = 4096;
    last.length = 512;
    const Bytes data(512, std::byte{0x5e});
    last.data = data;
    changed.emplace_back(last);
    files.put("changed.hrl", write_layer(files.delta, sorted_for(files.delta, changed)).bytes);
    const Run run = files.run("diff layer.hrl changed.hrl");
    CHECK(run.status == 3);
    CHECK(run.has("512 B differ"));
}

TEST_CASE("hrl convert writes a layer to v2 by position, and to v3 as it is") {
    Files files;
    const Run to_log = files.run("convert layer.hrl --to layer.v2 --format v2");
    INFO(to_log.output);
    REQUIRE(to_log.status == 0);
    CHECK(to_log.has("v2 cannot carry: the order of a layer"));
    CHECK(files.run("verify layer.v2").status == 0);
    // The same entries in the same order as those of the segment, cut at granules.
    std::vector<OwnedRecord> expected = sorted_for(files.delta, files.records);
    std::ranges::stable_sort(expected, {}, [](const OwnedRecord& record) {
        return std::pair(record.record.position, record.record.offset);
    });
    std::vector<std::pair<uint64_t, uint64_t>> wanted, found;
    for (const OwnedRecord& record : expected) {
        const RecordKind kind = record.record.kind;
        if (kind != RecordKind::write && kind != RecordKind::zeroes &&
            kind != RecordKind::discard && kind != RecordKind::secure_erase) {
            continue;
        }
        wanted.emplace_back(record.record.offset, record.record.length);
    }
    for (const auto& record : files.json("records layer.v2")) {
        found.emplace_back(record["offset"], record["length"]);
    }
    CHECK(found == wanted);
    const Run image = files.run("convert image.hrl --to image.v2 --format v2");
    CHECK(image.status == 0);
    CHECK(image.has("does not cover is zero"));

    REQUIRE(files.run("convert layer.hrl --to again.hrl --format v3").status == 0);
    CHECK(same(files.get("again.hrl"), files.get("layer.hrl")));
    REQUIRE(files.run("convert image.hrl --to image2.hrl --format v3").status == 0);
    CHECK(same(files.get("image2.hrl"), files.get("image.hrl")));
    files.refused("convert layer.hrl --to again.hrl --format v3", "exists");
    files.refused("convert layer.hrl next.hrl --to x.hrl --format v3", "give it alone");
    files.refused("convert layer.hrl --to x.hrl --format v3 --disk-bytes 2M", "leave out");
    files.refused("convert segment.hrl --to x.hrl --format v3", "is v3 already");
}

TEST_CASE("hrl repair refuses a layer of which anything is lost: what is left is no disk") {
    Files files;
    for (const std::string name : {"layer", "image"}) {
        const Bytes layer = files.get(name + ".hrl");
        REQUIRE(files.run("repair " + name + ".hrl --to " + name + "_whole.hrl").status == 0);
        CHECK(same(files.get(name + "_whole.hrl"), layer));
        Bytes flipped = layer;
        flipped[layer.size() / 2] ^= std::byte{1};
        files.put("flipped.hrl", flipped);
        const auto cut = [&](size_t bytes) {
            return Bytes(layer.begin(), layer.begin() + ptrdiff_t(bytes));
        };
        files.put("torn.hrl", cut(layer.size() * 2 / 3));
        files.put("no_footer.hrl", cut(layer.size() - 1));
        for (const std::string damaged : {"flipped", "torn", "no_footer"}) {
            // What is proven can be looked at all the same.
            CHECK(files.run("records " + damaged + ".hrl").output.size() > 1000);
            const Run run = files.run("repair " + damaged + ".hrl --to fixed.hrl");
            INFO(damaged << ": " << run.output);
            CHECK(run.status == 1);
            CHECK(run.has("is a layer"));
            CHECK(run.has("another copy"));
            CHECK_FALSE(std::filesystem::exists(files.dir.path() / "fixed.hrl"));
            CHECK_FALSE(std::filesystem::exists(files.dir.path() / "fixed.hrl.part"));
        }
    }
    // A layer by position, too: what came later may be why something earlier was left out.
    SegmentHeader thinned = sample_header(1024);
    thinned.contents = Contents::delta_layer;
    const Bytes bytes = write_layer(thinned, files.records, kLast).bytes;
    files.put("torn.hrl", Bytes(bytes.begin(), bytes.begin() + ptrdiff_t(bytes.size() * 2 / 3)));
    CHECK(files.run("repair torn.hrl --to fixed.hrl").status == 1);
}

TEST_CASE("hrl opens sealed layers with their key, and seals what it writes of them") {
    Files files;
    const auto key = seal::MachineKey::create(sample_id(0x11));
    const auto file = seal::new_root_key();
    auto root = seal::open_root_key(file, "root", nullptr);
    REQUIRE(root);
    auto wrapped = seal::wrap_machine_key(key, **root);
    REQUIRE(wrapped);
    REQUIRE(replace_file(files.dir.path() / "root", seal::format_root_key(file).view(), 0600));
    REQUIRE(replace_file(files.dir.path() / "machine.key",
                         as_bytes(seal::format_machine_key(*wrapped)), 0600));
    files.put("sealed.hrl",
              write_layer(files.delta, sorted_for(files.delta, files.records), kLast, &key).bytes);
    const std::string keys = " --key root --keys machine.key";
    CHECK(files.run("records sealed.hrl 2>/dev/null").output ==
          files.run("records layer.hrl").output);
    for (const char* command :
         {"apply sealed.hrl --to x", "diff sealed.hrl layer.hrl",
          "convert sealed.hrl --to x --format v3", "repair sealed.hrl --to x"}) {
        files.refused(command, "give the key");
    }
    CHECK(files.run("diff sealed.hrl segment.hrl --allow-plain" + keys).status == 0);
    REQUIRE(files.run("apply sealed.hrl --to sealed.img" + keys).status == 0);
    CHECK(same(files.get("sealed.img"), files.get("segment.img")));
    REQUIRE(files.run("convert sealed.hrl --to again.hrl --format v3" + keys).status == 0);
    CHECK(files.json("info again.hrl")["sealed_by"] == "server");
    CHECK(files.run("diff again.hrl layer.hrl --allow-plain" + keys).status == 0);
    CHECK(files.run("records again.hrl 2>/dev/null").output ==
          files.run("records layer.hrl").output);
}
