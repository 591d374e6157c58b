// SPDX-License-Identifier: Apache-2.0
#include "user/vault/restore.h"

#include <map>

#include "herald/limits.h"
#include "tests/e2e/loop_disk.h"
#include "tests/stream_builder.h"
#include "tests/temp_dir.h"
#include "user/base/digest.h"
#include "user/base/file.h"
#include "user/vault/restore_target.h"

using namespace herald;

namespace {

constexpr uint64_t kChunk = HERALD_BLOCK_BYTES;
constexpr uint64_t kDisk = 6 * kChunk + 512;

// Segments in memory, which a test may damage.
class FakeProvider : public vault::SegmentProvider {
  public:
    Result<std::vector<wire::SegmentInfo>> segments(const Uuid&, uint64_t after,
                                                    size_t limit) override {
        std::vector<wire::SegmentInfo> page;
        for (const auto& info : infos) {
            if (info.last_position > after && page.size() < std::min(limit, page_max)) {
                page.push_back(info);
            }
        }
        return page;
    }
    Result<Bytes> fetch(const Uuid&, const wire::SegmentInfo& segment) override {
        return files.at(segment.first_position);
    }
    void add(const hrl::Segment& segment) {
        wire::SegmentInfo info;
        info.first_position = segment.header.first_position;
        info.last_position = segment.last_position;
        info.epoch = segment.header.epoch;
        info.segment = segment.header.segment;
        info.bytes = segment.bytes.size();
        info.digest = to_hex(xxh3_128(segment.bytes).bytes);
        infos.push_back(info);
        files[info.first_position] = segment.bytes;
    }

    std::vector<wire::SegmentInfo> infos;
    std::map<uint64_t, Bytes> files;
    size_t page_max = 2;
};

struct Point {
    uint64_t position;
    Bytes image;
};

struct Sample {
    Uuid disk = Uuid::random();
    test::StreamBuilder stream{Uuid::random(), disk, kDisk};
    FakeProvider provider;
    std::vector<Point> points;

    Sample() {
        stream.activation().scan_begin();
        for (uint8_t i = 0; i < 6; ++i) {
            stream.write(i * kChunk, kChunk, uint8_t(i + 1));
            if (i % 2) provider.add(stream.segment());
        }
        stream.write(6 * kChunk, 512, 9).scan_end();
        point();
        stream.zeroes(kChunk, 2 * kChunk).write(512, 1024, 77);
        point();
        provider.add(stream.segment());
        stream.discard(0, kChunk).write(5 * kChunk, 512, 78);
        point();
        stream.write(0, kDisk, 99);
        provider.add(stream.segment());
    }
    // A tag in the middle of a segment: what follows it in there must not be applied.
    void point() {
        stream.tag("p");
        points.push_back({stream.position(), stream.image()});
    }
    Result<Bytes> restore(uint64_t position, uint64_t disk_bytes = kDisk) {
        test::TempDir dir;
        auto target = vault::open_restore_target(dir.path() / "image", disk_bytes, false);
        if (!target) return pass(target);
        vault::RestoreRequest request{disk, position, disk_bytes, target->fd.get(), "image"};
        auto done = vault::restore(provider, request);
        if (!done) return pass(done);
        CHECK(done->position == position);
        return read_file(dir.path() / "image", 64 << 20);
    }
};

}  // namespace

TEST_CASE("every point comes back as the disk was, to the byte") {
    Sample sample;
    for (const Point& point : sample.points) {
        auto image = sample.restore(point.position);
        if (!image) FAIL(image.error().message);
        CHECK(*image == point.image);
    }
}

TEST_CASE("a flipped byte anywhere in a stored segment is refused, naming the segment") {
    Sample sample;
    Bytes& file = sample.provider.files[1];
    const std::string id = to_string(sample.provider.infos[0].segment);
    // Beyond the blocks' bytes this visits every byte of header, index and footer.
    const size_t step = file.size() > 3000 ? 7 : 1;
    test::TempDir dir;
    auto target = vault::open_restore_target(dir.path() / "image", kDisk, false);
    REQUIRE(target);
    for (size_t at = 0; at < file.size(); at += step) {
        file[at] ^= std::byte{0x10};
        auto done = vault::restore(sample.provider, {sample.disk, sample.points[0].position, kDisk,
                                                     target->fd.get(), "image"});
        REQUIRE_FALSE(done);
        CHECK(done.error().message.find(id) != std::string::npos);
        file[at] ^= std::byte{0x10};
    }
    CHECK(sample.restore(sample.points[0].position));
}

TEST_CASE("a segment that was replaced together with its digest is refused by its contents") {
    Sample sample;
    // Another disk's segment, whole and valid, at the same positions.
    test::StreamBuilder other(Uuid::random(), Uuid::random(), kDisk);
    other.activation().scan_begin().write(0, kChunk, 1).write(kChunk, kChunk, 2);
    FakeProvider theirs;
    theirs.add(other.segment());
    sample.provider.infos[0] = theirs.infos[0];
    sample.provider.files[1] = theirs.files[1];
    auto image = sample.restore(sample.points[0].position);
    REQUIRE_FALSE(image);
    CHECK(image.error().kind == ErrorKind::corrupt);
}

TEST_CASE("a missing, cut or repeated segment is refused") {
    const auto damage = [](auto change) {
        Sample sample;
        change(sample.provider);
        auto image = sample.restore(sample.points.back().position);
        REQUIRE_FALSE(image);
        CHECK(image.error().kind == ErrorKind::corrupt);
        return image.error().message;
    };
    CHECK(damage([](FakeProvider& p) { p.infos.erase(p.infos.begin()); }).find("missing") !=
          std::string::npos);
    CHECK(damage([](FakeProvider& p) { p.infos.erase(p.infos.begin() + 1); }).find("missing") !=
          std::string::npos);
    CHECK(damage([](FakeProvider& p) { p.infos.pop_back(); }).find("ends at") != std::string::npos);
    damage([](FakeProvider& p) { p.files.begin()->second.pop_back(); });
    damage([](FakeProvider& p) { p.infos[1].last_position += 1; });
    damage([](FakeProvider& p) { p.infos[1].epoch += 1; });
    damage([](FakeProvider& p) { p.infos[1].segment = Uuid::random(); });
    damage([](FakeProvider& p) { p.infos[1].bytes = 1ull << 40; });
}

TEST_CASE("a segment that does not follow the one before by id is refused") {
    Sample sample;
    test::StreamBuilder other(Uuid::random(), sample.disk, kDisk);
    const uint64_t head = sample.provider.infos[0].last_position;
    other.new_epoch(1, head, Uuid::random());
    other.write(0, 512, 1);
    FakeProvider theirs;
    theirs.add(other.segment());
    sample.provider.infos[1] = theirs.infos[0];
    sample.provider.files[head + 1] = theirs.files[head + 1];
    auto image = sample.restore(head + 1);
    REQUIRE_FALSE(image);
    CHECK(image.error().message.find("follows") != std::string::npos);
}

TEST_CASE("a disk that changed its size comes back with the size it had") {
    Sample sample;
    sample.stream.resize(kDisk + kChunk).write(kDisk, kChunk, 3);
    sample.point();
    sample.provider.add(sample.stream.segment());
    sample.stream.resize(kChunk);
    sample.point();
    sample.stream.resize(2 * kChunk);
    sample.point();
    sample.provider.add(sample.stream.segment());
    for (const Point& point : sample.points) {
        auto image = sample.restore(point.position, point.image.size());
        if (!image) FAIL(image.error().message);
        CHECK(*image == point.image);
    }
    CHECK_FALSE(sample.restore(sample.points.back().position, kDisk));
}

TEST_CASE("a restore can be cancelled and says what the canceller said") {
    Sample sample;
    test::TempDir dir;
    auto target = vault::open_restore_target(dir.path() / "image", kDisk, false);
    REQUIRE(target);
    vault::RestoreRequest request{sample.disk, sample.points.back().position, kDisk,
                                  target->fd.get(), "image"};
    int calls = 0;
    auto done = vault::restore(sample.provider, request,
                               [&](const vault::RestoreProgress&) -> Result<void> {
                                   if (++calls == 2) return fail(ErrorKind::retry, "enough");
                                   return {};
                               });
    REQUIRE_FALSE(done);
    CHECK(done.error().message == "enough");
    CHECK(calls == 2);
}

TEST_CASE("a device as large as the disk was at the point takes it, though the disk was larger") {
    if (const std::string missing = test::missing_for_loop_disks(); !missing.empty()) {
        std::printf("SKIPPED: %s: a loop device is needed\n", missing.c_str());
        return;
    }
    test::TempDir dir;
    test::LoopDisk device(dir.path() / "backing", std::to_string(2 * kChunk));
    test::StreamBuilder stream(Uuid::random(), Uuid::random(), 4 * kChunk);
    FakeProvider provider;
    stream.activation().scan_begin();
    // Across the device's end, behind it, and zeroes over both.
    stream.write(kChunk, 2 * kChunk, 7).write(3 * kChunk, kChunk, 8).zeroes(kChunk / 2, 3 * kChunk);
    stream.write(0, 4096, 9).write(2 * kChunk - 512, 1024, 10).scan_end().tag("large");
    const uint64_t large = stream.position();
    provider.add(stream.segment());
    stream.resize(2 * kChunk).write(kChunk, 512, 11).tag("small");
    provider.add(stream.segment());
    const Uuid disk = stream.header().disk;
    const auto restore_to_device = [&](uint64_t position, uint64_t bytes) {
        auto fd = open_file(device.device(), O_RDWR);
        REQUIRE(fd);
        return vault::restore(provider, {disk, position, bytes, fd->get(), device.device()});
    };
    const auto refused = restore_to_device(large, 4 * kChunk);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().message.find("at least as large") != std::string::npos);
    const auto done = restore_to_device(stream.position(), 2 * kChunk);
    if (!done) FAIL(done.error().message);
    CHECK(*read_file(device.device(), 2 * kChunk) == stream.image());
    // Where the size at the end is not known, what the disk had at any time must fit.
    CHECK_FALSE(restore_to_device(stream.position(), 0));
}
