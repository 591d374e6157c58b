// SPDX-License-Identifier: Apache-2.0
#include "user/vault/boundary.h"

#include <map>

#include "tests/stream_builder.h"
#include "user/base/digest.h"

using namespace herald;
using hrl::StreamMode;

namespace {

constexpr uint64_t kDisk = 1 << 20;

struct Host : vault::SegmentProvider {
    Uuid disk = Uuid::random();
    test::StreamBuilder stream{Uuid::random(), disk, kDisk};
    std::vector<wire::SegmentInfo> infos;
    std::map<uint64_t, Bytes> files;

    void cut() {
        const hrl::Segment segment = stream.segment();
        wire::SegmentInfo info;
        info.first_position = segment.header.first_position;
        info.last_position = segment.last_position;
        info.segment = segment.header.segment;
        info.bytes = segment.bytes.size();
        info.digest = to_hex(xxh3_128(segment.bytes).bytes);
        infos.push_back(info);
        files[info.first_position] = segment.bytes;
    }
    Result<std::vector<wire::SegmentInfo>> segments(const Uuid&, uint64_t after, size_t) override {
        for (const auto& info : infos) {
            if (info.last_position > after) return std::vector{info};
        }
        return std::vector<wire::SegmentInfo>();
    }
    Result<Bytes> fetch(const Uuid&, const wire::SegmentInfo& segment) override {
        return files.at(segment.first_position);
    }
    Result<vault::Boundary> at(uint64_t position) {
        return vault::find_boundary(*this, disk, {position, {}, false});
    }
    // The builder's times are its positions.
    Result<vault::Boundary> at_time(uint64_t time) {
        return vault::find_boundary(*this, disk, {{}, time, false});
    }
    Result<vault::Boundary> at_moment(uint64_t time) {
        return vault::find_boundary(*this, disk, {{}, time, true});
    }
    std::string refusal(const Result<vault::Boundary>& boundary) {
        return boundary ? "" : boundary.error().message;
    }
};

}  // namespace

TEST_CASE_METHOD(Host, "every boundary of an ordered span is found, and none within a fuzzy one") {
    stream.activation(StreamMode::ordered).scan_begin().write(0, 4096, 1);  // 1 to 3
    cut();
    stream.scan_end().write(0, 512, 2).write(512, 512, 3);  // 4 to 6
    cut();
    stream.mode(StreamMode::map).mode(StreamMode::ordered);  // 7, 8
    stream.scan_begin(2).write(0, 512, 4);                   // 9, 10
    cut();
    stream.scan_end(2).write(0, 512, 5);  // 11, 12
    cut();
    for (const uint64_t good : {4, 5, 6, 11, 12}) {
        const auto boundary = at(good);
        INFO(refusal(boundary));
        REQUIRE(boundary);
        CHECK(boundary->position == good);
        CHECK(boundary->disk_bytes == kDisk);
        CHECK(at_time(good)->position == good);
    }
    CHECK(refusal(at(1)).find("position 1 is not restorable: no scan has ended") == 0);
    CHECK(refusal(at(7)).find("the mode became map") != std::string::npos);
    CHECK(refusal(at(8)).find("the mode became ordered") != std::string::npos);
    CHECK(refusal(at(10)).find("the mode became ordered") != std::string::npos);
    CHECK(refusal(at(13)).find("the stream ends at position 12") == 0);
    CHECK(refusal(at(0)).find("the stream ends") == 0);
    // The newest at or before.
    CHECK(at_time(10)->position == 6);
    CHECK(at_time(UINT64_MAX)->position == 12);
    CHECK(refusal(at_time(3)).find("no scan has ended") != std::string::npos);
    CHECK(refusal(at_time(0)).find("the stream begins later") != std::string::npos);
}

TEST_CASE_METHOD(Host, "a moment is exact, or refused, never an older one in its place") {
    stream.activation(StreamMode::ordered).scan_begin().write(0, 4096, 1).scan_end();  // 1 to 4
    stream.write(0, 512, 2);                                                           // 5
    cut();
    stream.mode(StreamMode::map).mode(StreamMode::ordered);  // 6, 7
    stream.scan_begin(2).write(0, 512, 4);                   // 8, 9
    stream.scan_end(2).write(0, 512, 5).write(512, 512, 6);  // 10, 11, 12
    cut();
    for (const uint64_t good : {4, 5, 10, 11}) {
        INFO(refusal(at_moment(good)));
        REQUIRE(at_moment(good));
        CHECK(at_moment(good)->position == good);
    }
    for (const uint64_t fuzzy : {6, 7, 8, 9}) {
        CHECK(at_time(fuzzy)->position == 5);
        CHECK(refusal(at_moment(fuzzy)).find("that moment itself is not restorable: ") == 0);
    }
    CHECK(refusal(at_moment(3)).find("no scan has ended") != std::string::npos);
    // What is not there yet may still come before the moment.
    CHECK(at_time(12)->position == 12);
    CHECK(refusal(at_moment(12)).find("the stored stream does not reach") == 0);
}

TEST_CASE_METHOD(Host, "an unordered stream has its boundaries only behind quiescent scans") {
    stream.activation().scan_begin().write(0, 512, 1).scan_end().tag("a").write(0, 512, 2);
    cut();
    CHECK(at(4));
    CHECK(at(5));
    CHECK(refusal(at(6)).find("does not see the order of writes") != std::string::npos);
    CHECK(at_time(6)->position == 5);
}

TEST_CASE_METHOD(Host, "the size at the boundary is the disk's then") {
    stream.activation(StreamMode::ordered).scan_begin().scan_end();
    stream.resize(kDisk / 2).write(0, 512, 1);
    cut();
    CHECK(at(3)->disk_bytes == kDisk);
    CHECK(at(4)->disk_bytes == kDisk / 2);
}

TEST_CASE_METHOD(Host, "what is damaged or missing is not walked over") {
    stream.activation(StreamMode::ordered).scan_begin().scan_end();
    cut();
    stream.write(0, 512, 1);
    cut();
    stream.write(0, 512, 2);
    cut();
    REQUIRE(at(5));
    files[4][200] ^= std::byte{1};
    CHECK(at(5).error().kind == ErrorKind::corrupt);
    files[4][200] ^= std::byte{1};
    infos.erase(infos.begin() + 1);
    CHECK(at(5).error().kind == ErrorKind::corrupt);
}
