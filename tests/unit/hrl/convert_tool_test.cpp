// SPDX-License-Identifier: Apache-2.0
// hrl convert and repair: what was not proven does not become so by being written anew, and what
// cannot be carried along is said first.
#include "tests/forge_segment.h"
#include "tests/unit/hrl/sample_layers.h"
#include "tests/unit/hrl/tool_directory.h"
#include "tests/unit/hrl/v2/sample_logs.h"
#include "tools/hrl/numbered_files.h"

using namespace herald;
using namespace herald::hrl;
using namespace herald::hrl::test;
using herald::hrl_tool::NumberedFiles;
namespace logs = herald::hrl::v2::test;

namespace {

constexpr uint64_t kDisk = 1 << 20;

// The entries without a data checksum, as verify counts them.
uint64_t unchecked_in(const Bytes& bytes) {
    auto reader = v2::LogReader::open(memory_source(bytes, "log"));
    REQUIRE(reader);
    for (;;) {
        auto record = reader->next();
        REQUIRE(record);
        if (!*record) return reader->entries_unchecked();
    }
}

}  // namespace

TEST_CASE("hrl repair gives data that had no checksum none, and says so") {
    ToolDirectory files;
    logs::LogShape shape;
    shape.data_checksums = false;
    shape.closed = false;
    const auto writes = logs::sample_writes(12, 60, kDisk);
    files.write("unchecked.hrl", logs::build_log(writes, shape));
    shape.data_checksums = true;
    files.write("checked.hrl", logs::build_log(writes, shape));
    files.ends("hrl repair unchecked.hrl --to fixed.hrl", 0, "no data checksum");
    CHECK(unchecked_in(files.read("fixed.hrl")) == 60);
    files.ends("hrl verify fixed.hrl", 0, "60 of 60 entries have no data checksum");
    CHECK_FALSE(files.shell("hrl repair checked.hrl --to fixed2.hrl").has("no data checksum"));
    CHECK(unchecked_in(files.read("fixed2.hrl")) == 0);
    // Damage in such data is not noticed, and not vouched for afterwards either.
    Bytes damaged = files.read("unchecked.hrl");
    damaged[v2::kHeaderBytes + 512 + 100] ^= std::byte{1};
    files.write("damaged.hrl", damaged);
    files.ends("hrl repair damaged.hrl --to fixed3.hrl", 0, "no data checksum");
    CHECK(unchecked_in(files.read("fixed3.hrl")) == 60);
}

TEST_CASE("hrl convert says first that v3 puts checksums over data that nothing proves") {
    ToolDirectory files;
    logs::LogShape shape;
    shape.data_checksums = false;
    const auto writes = logs::sample_writes(12, 60, kDisk);
    files.write("unchecked.hrl", logs::build_log(writes, shape));
    files.write("checked.hrl", logs::build_log(writes));
    const std::string to = " --to x.hrl --format v3 --dry-run";
    files.ends("hrl convert unchecked.hrl" + to, 0, "60 writes have no data checksum");
    CHECK_FALSE(files.shell("hrl convert checked.hrl" + to).has("no data checksum"));
    CHECK_FALSE(files.exists("x.hrl"));
}

TEST_CASE("hrl convert to several files looks for all of their names before the first is given") {
    ToolDirectory files;
    const auto made = [&](const std::string& taken, uint64_t count) {
        std::filesystem::remove(files.at("out.hrl"));
        std::filesystem::remove(files.at("out.2.hrl"));
        std::filesystem::remove(files.at("out.3.hrl"));
        if (!taken.empty()) files.write(taken, Bytes(3, std::byte{9}));
        NumberedFiles output(files.at("out.hrl"));
        const auto make = [&]() -> Result<void> {
            for (uint64_t i = 0; i < count; ++i) {
                auto sink = output.begin();
                if (!sink) return pass(sink);
                auto written = (*sink)->append(Bytes(10 + i, std::byte{1}));
                if (!written) return written;
                auto ended = output.end();
                if (!ended) return ended;
            }
            return output.commit();
        };
        return make();
    };
    REQUIRE(made("", 3));
    CHECK(files.read("out.hrl").size() == 10);
    CHECK(files.read("out.2.hrl").size() == 11);
    CHECK(files.read("out.3.hrl").size() == 12);
    for (const std::string taken : {"out.hrl", "out.2.hrl", "out.3.hrl"}) {
        auto refused = made(taken, 3);
        REQUIRE_FALSE(refused);
        CHECK(refused.error().kind == ErrorKind::operator_needed);
        CHECK(refused.error().message.find(taken + " exists") != std::string::npos);
        for (const std::string name : {"out.hrl", "out.2.hrl", "out.3.hrl"}) {
            CHECK(files.exists(name) == (name == taken));
            CHECK_FALSE(files.exists(name + ".part"));
        }
        CHECK(files.read(taken).size() == 3);
    }
    // Names that it does not need, or that only look alike, are nobody's business.
    REQUIRE(made("out.2.hrl", 1));
    CHECK(files.read("out.hrl").size() == 10);
    CHECK(files.read("out.2.hrl").size() == 3);
    for (const std::string alike :
         {"out.x.hrl", "out.1.hrl", "out.02.hrl", "out2.hrl", "out.2.img"}) {
        REQUIRE(made(alike, 2));
        CHECK(files.read("out.2.hrl").size() == 11);
    }
}

TEST_CASE("hrl shows optional features that it does not know, and says when it drops them") {
    ToolDirectory files;
    const auto records = sample_records(3, 60, kDisk);
    const SegmentHeader header = layer_header(4096);
    files.write("segment.hrl", write_segment(sample_header(4096), records).bytes);
    files.write("layer.hrl", write_layer(header, sorted_for(header, records)).bytes);
    const std::string dropped = "the optional features 0x80000001";
    for (const std::string name : {"segment", "layer"}) {
        // Nothing is said of a file that has none.
        CHECK_FALSE(files.shell("hrl info " + name + ".hrl").has("features"));
        CHECK(files.json("hrl info --json " + name + ".hrl")["features_optional"] == 0);
        files.ends("hrl repair " + name + ".hrl --to x.hrl", 0, "nothing was lost");
        CHECK_FALSE(files.shell("hrl repair " + name + ".hrl --to y.hrl").has("optional"));
        Bytes bytes = files.read(name + ".hrl");
        store_le(bytes.data() + offsetof(SegmentHeaderDisk, features_optional), 0x80000001u);
        herald::test::forge_segment(bytes);
        files.write("newer.hrl", bytes);
        files.ends("hrl verify newer.hrl", 0, "ok");
        files.ends("hrl info newer.hrl", 0, "optional 0x80000001, not known here");
        CHECK(files.json("hrl info --json newer.hrl")["features_optional"] == 0x80000001u);
        files.ends("hrl repair newer.hrl --to " + name + "_again.hrl", 0, dropped);
        CHECK(files.read(name + "_again.hrl") == files.read(name + ".hrl"));
        files.ends("hrl convert newer.hrl --to z --format v2 --dry-run", 0, dropped);
        std::filesystem::remove(files.at("x.hrl"));
        std::filesystem::remove(files.at("y.hrl"));
    }
    files.ends("hrl convert newer.hrl --to z.hrl --format v3 --dry-run", 0, dropped);
    CHECK_FALSE(files.exists("z.hrl"));
    files.ends("hrl convert newer.hrl --to z.hrl --format v3", 0, dropped);
}
