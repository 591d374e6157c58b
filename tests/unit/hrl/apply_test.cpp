// SPDX-License-Identifier: Apache-2.0
#include <sys/stat.h>

#include "tests/temp_dir.h"
#include "tests/unit/hrl/sample_segments.h"
#include "user/hrl/apply.h"

using namespace herald;
using namespace herald::hrl;
using namespace herald::hrl::test;

namespace {

ImageWriter image(const std::filesystem::path& path, uint64_t disk_bytes) {
    auto fd = open_file(path, O_RDWR | O_CREAT);
    REQUIRE(fd);
    auto writer = ImageWriter::open(std::move(*fd), path.native(), disk_bytes);
    REQUIRE(writer);
    return std::move(*writer);
}

// The plainest model there is: a disk as a vector.
void apply_to_model(Bytes& disk, const Record& record) {
    if (record.kind == RecordKind::resize) disk.resize(record.length);
    if (record.kind == RecordKind::write) {
        std::copy(record.data.begin(), record.data.end(), disk.begin() + ptrdiff_t(record.offset));
    }
    if (record.kind == RecordKind::zeroes || record.kind == RecordKind::discard ||
        record.kind == RecordKind::secure_erase) {
        std::fill_n(disk.begin() + ptrdiff_t(record.offset), record.length, std::byte{0});
    }
}

Record zeroes(uint64_t offset, uint64_t length, RecordKind kind = RecordKind::zeroes) {
    Record record;
    record.kind = kind;
    record.position = 1;
    record.offset = offset;
    record.length = length;
    return record;
}

}  // namespace

TEST_CASE("an image holds what a model of the disk holds, over old content and resizes") {
    const uint64_t seed = seed_from_environment();
    INFO("HERALD_SEED=" << seed);
    herald::test::TempDir dir;
    const auto path = dir.path() / "image";
    std::mt19937_64 random(seed);
    const Bytes old_content = random_bytes(random, 300000);
    REQUIRE(replace_file(path, old_content));

    uint64_t disk_bytes = 256 << 10;
    Bytes model(old_content.begin(), old_content.begin() + ptrdiff_t(disk_bytes));
    ImageWriter writer = image(path, disk_bytes);
    for (size_t round = 0; round < 8 * tier_scale(); ++round) {
        for (const auto& record : sample_records(seed + round, 100, disk_bytes)) {
            REQUIRE(writer.apply(record.view()));
            apply_to_model(model, record.view());
        }
        disk_bytes = 512 * (128 + random() % 1024);
        Record resize = zeroes(0, disk_bytes, RecordKind::resize);
        REQUIRE(writer.apply(resize));
        apply_to_model(model, resize);
    }
    REQUIRE(writer.finish());
    auto bytes = read_file(path, 1 << 24);
    REQUIRE(bytes);
    CHECK(*bytes == model);
}

TEST_CASE("zero records become a hole, also where data was") {
    herald::test::TempDir dir;
    const auto path = dir.path() / "image";
    constexpr uint64_t kBytes = 16 << 20;
    ImageWriter writer = image(path, kBytes);
    Record write = zeroes(1 << 20, 1 << 20, RecordKind::write);
    const Bytes data(write.length, std::byte{7});
    write.data = data;
    REQUIRE(writer.apply(write));
    for (uint64_t at = 0; at < kBytes; at += 65536) REQUIRE(writer.apply(zeroes(at, 65536)));
    REQUIRE(writer.finish());
    CHECK(writer.zeroed_bytes() == kBytes);
    CHECK(writer.written_bytes() == write.length);
    auto bytes = read_file(path, kBytes);
    REQUIRE(bytes);
    CHECK(bytes->size() == kBytes);
    CHECK(all_zero(*bytes));
    struct stat st {};
    REQUIRE(::stat(path.c_str(), &st) == 0);
    CHECK(uint64_t(st.st_blocks) * 512 < kBytes / 16);
}

TEST_CASE("a record outside the disk is refused before anything is written") {
    herald::test::TempDir dir;
    const auto path = dir.path() / "image";
    ImageWriter writer = image(path, 1 << 20);
    for (const RecordKind kind :
         {RecordKind::zeroes, RecordKind::discard, RecordKind::secure_erase}) {
        CHECK_FALSE(writer.apply(zeroes(0, (1 << 20) + 512, kind)));
        CHECK_FALSE(writer.apply(zeroes(1 << 20, 512, kind)));
    }
    const Bytes data(512, std::byte{1});
    Record write = zeroes(1 << 20, 512, RecordKind::write);
    write.data = data;
    auto refused = writer.apply(write);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().kind == ErrorKind::corrupt);
    REQUIRE(writer.apply(zeroes(0, 1 << 19, RecordKind::resize)));
    CHECK_FALSE(writer.apply(zeroes(1 << 19, 512)));
    REQUIRE(writer.finish());
    CHECK(std::filesystem::file_size(path) == 1 << 19);
}

TEST_CASE("a target that is neither file nor block device is refused") {
    auto fd = open_file("/dev/null", O_RDWR);
    REQUIRE(fd);
    CHECK_FALSE(ImageWriter::open(std::move(*fd), "/dev/null", 512));
}
