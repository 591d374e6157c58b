// SPDX-License-Identifier: Apache-2.0
// hrl apply onto a target that is there: all of the journals or nothing of them, and what they do
// not touch stays.
#include <unistd.h>

#include "tests/unit/hrl/sample_layers.h"
#include "tests/unit/hrl/tool_directory.h"
#include "tests/unit/hrl/v2/sample_logs.h"

using namespace herald;
using namespace herald::hrl;
using namespace herald::hrl::test;

namespace {

constexpr uint64_t kDisk = 256 << 10;

OwnedRecord write_of(uint64_t position, uint64_t offset, uint8_t fill, uint64_t length = 4096) {
    const Bytes data(length, std::byte{fill});
    Record record;
    record.position = position;
    record.offset = offset;
    record.length = length;
    record.data = data;
    return OwnedRecord(record);
}

OwnedRecord without_data(RecordKind kind, uint64_t position, uint64_t offset, uint64_t length) {
    Record record;
    record.kind = kind;
    record.position = position;
    record.offset = offset;
    record.length = length;
    return OwnedRecord(record);
}

SegmentHeader header_of(uint64_t first = 1, uint64_t disk_bytes = kDisk) {
    SegmentHeader header = sample_header(4096, first);
    header.disk_bytes = disk_bytes;
    return header;
}

// Not by the test framework, which would print both.
bool same(const Bytes& a, const Bytes& b) { return a == b; }

}  // namespace

TEST_CASE("hrl apply finds a record outside of the disk before it touches the target") {
    ToolDirectory files;
    const Bytes old(kDisk, std::byte{0x5a});
    const auto untouched = [&](const std::vector<OwnedRecord>& records) {
        files.write("a.hrl", write_segment(header_of(), records).bytes);
        files.write("disk.img", old);
        files.ends("hrl apply a.hrl --to disk.img --force", 1, "of a disk that has");
        CHECK(same(files.read("disk.img"), old));
        files.ends("hrl verify a.hrl", 0, "of a disk that has");
        CHECK(files.json("hrl verify a.hrl --json")[0]["notices"].size() == 1);
        files.ends("hrl apply a.hrl --to new.img", 1, "of a disk that has");
        CHECK_FALSE(files.exists("new.img"));
        // What comes before it can be had.
        files.ends("hrl apply a.hrl --to disk.img --force --until 1", 0, "");
        CHECK_FALSE(same(files.read("disk.img"), old));
    };
    untouched({write_of(1, 0, 1), write_of(2, kDisk, 2)});
    untouched({write_of(1, 0, 1), write_of(2, kDisk - 2048, 2)});
    untouched({write_of(1, 0, 1), without_data(RecordKind::zeroes, 2, 0, kDisk + 512)});
    untouched({write_of(1, 0, 1), without_data(RecordKind::discard, 2, kDisk, 512)});
    untouched({write_of(1, 0, 1), without_data(RecordKind::resize, 2, 0, kDisk / 2),
               write_of(3, kDisk / 2, 3)});
    // A resize makes room; a reread changes nothing.
    files.write("fits.hrl",
                write_segment(header_of(), {without_data(RecordKind::resize, 1, 0, 2 * kDisk),
                                            write_of(2, 2 * kDisk - 4096, 2),
                                            without_data(RecordKind::resize, 3, 0, kDisk),
                                            without_data(RecordKind::reread, 4, kDisk, 512)})
                    .bytes);
    files.write("disk.img", old);
    files.ends("hrl apply fits.hrl --to disk.img --force", 0, "");
    CHECK(same(files.read("disk.img"), old));
    CHECK_FALSE(files.shell("hrl verify fits.hrl").has("of a disk that has"));
}

TEST_CASE("hrl apply looks at the disk's size also in layers, whose records stand by block") {
    ToolDirectory files;
    const Bytes old(kDisk, std::byte{0x5a});
    SegmentHeader header = layer_header(4096);
    header.disk_bytes = kDisk;
    const std::vector<OwnedRecord> grown = {
        write_of(1, 0, 1), without_data(RecordKind::resize, 2, 0, 2 * kDisk),
        write_of(3, 2 * kDisk - 4096, 2), without_data(RecordKind::resize, 4, 0, kDisk)};
    files.write("layer.hrl", write_layer(header, sorted_for(header, grown)).bytes);
    files.write("disk.img", old);
    files.ends("hrl apply layer.hrl --to disk.img --force", 0, "");
    // The same write once more, after the disk was shrunk.
    auto late = grown;
    late.push_back(write_of(5, 2 * kDisk - 8192, 3));
    files.write("late.hrl", write_layer(header, sorted_for(header, late)).bytes);
    files.write("disk.img", old);
    files.ends("hrl apply late.hrl --to disk.img --force", 1, "record 5 covers");
    CHECK(same(files.read("disk.img"), old));
    files.ends("hrl verify late.hrl", 0, "record 5 covers");
}

TEST_CASE("hrl apply finds an entry of a log outside of the target before it touches it") {
    ToolDirectory files;
    v2::test::Write inside{0, Bytes(512, std::byte{1})};
    v2::test::Write outside{kDisk, Bytes(512, std::byte{2})};
    files.write("log.hrl", v2::test::build_log({inside, outside}));
    const Bytes old(kDisk, std::byte{0x5a});
    files.write("disk.img", old);
    files.ends("hrl apply log.hrl --to disk.img --force", 2, "give a target at least as large");
    CHECK(same(files.read("disk.img"), old));
    files.ends("hrl apply log.hrl --to disk.img --force --until 1", 0, "");
    CHECK_FALSE(same(files.read("disk.img"), old));
}

TEST_CASE("hrl apply never takes one of its journals for the target, by whatever name") {
    ToolDirectory files;
    const Bytes journal = write_segment(header_of(), {write_of(1, 0, 1)}).bytes;
    files.write("a.hrl", journal);
    files.write("log.hrl", v2::test::build_log({{0, Bytes(512, std::byte{1})}}));
    const Bytes log = files.read("log.hrl");
    std::filesystem::create_symlink("a.hrl", files.at("link"));
    std::filesystem::create_hard_link(files.at("a.hrl"), files.at("hard"));
    for (const std::string target : {"a.hrl", "./a.hrl", "link", "hard"}) {
        files.ends("hrl apply a.hrl --to " + target + " --force", 2, "is one of the journals");
        files.ends("hrl apply link --to " + target + " --force", 2, "is one of the journals");
        CHECK(same(files.read("a.hrl"), journal));
    }
    files.ends("hrl apply log.hrl --to log.hrl --force", 2, "is one of the journals");
    CHECK(same(files.read("log.hrl"), log));
}

TEST_CASE("hrl apply --force keeps of a larger file what lies behind the disk") {
    ToolDirectory files;
    files.write("a.hrl", write_segment(header_of(), {write_of(1, 0, 1)}).bytes);
    Bytes image(kDisk + 10000, std::byte{0x5a});
    files.write("disk.img", image);
    files.ends("hrl apply a.hrl --to disk.img --force", 0, "is kept");
    std::fill_n(image.begin(), 4096, std::byte{1});
    CHECK(same(files.read("disk.img"), image));
    // An image layer is the whole disk, and nothing behind it.
    SegmentHeader header = layer_header(4096, Contents::image_layer);
    header.disk_bytes = kDisk;
    files.write("image.hrl", write_layer(header, {write_of(1, 4096, 7)}).bytes);
    files.ends("hrl apply image.hrl --to disk.img --force", 0, "is kept");
    std::fill_n(image.begin(), kDisk, std::byte{0});
    std::fill_n(image.begin() + 4096, 4096, std::byte{7});
    CHECK(same(files.read("disk.img"), image));
    // A resize says how long the disk is; what was behind it does not come into it.
    files.write(
        "b.hrl",
        write_segment(header_of(), {without_data(RecordKind::resize, 1, 0, 2 * kDisk)}).bytes);
    files.ends("hrl apply b.hrl --to disk.img --force", 0, "");
    image.resize(kDisk);
    image.resize(2 * kDisk);
    CHECK(same(files.read("disk.img"), image));
    files.write("c.hrl", write_segment(header_of(1, 2 * kDisk),
                                       {without_data(RecordKind::resize, 1, 0, kDisk)})
                             .bytes);
    files.ends("hrl apply c.hrl --to disk.img --force", 0, "");
    image.resize(kDisk);
    CHECK(same(files.read("disk.img"), image));
    // A smaller one becomes as large as the disk.
    files.write("small.img", Bytes(1000, std::byte{3}));
    files.ends("hrl apply a.hrl --to small.img --force", 0, "");
    CHECK(files.read("small.img").size() == kDisk);
}
