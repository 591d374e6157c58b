// SPDX-License-Identifier: Apache-2.0
#include "tools/herald/kept_segments.h"

#include "tests/catch.hpp"

using namespace herald;

namespace {

// Segments of a hundred bytes, each of which says how often it was asked for.
struct Server : vault::SegmentProvider {
    Result<std::vector<wire::SegmentInfo>> segments(const Uuid&, uint64_t, size_t) override {
        return infos;
    }
    Result<Bytes> fetch(const Uuid&, const wire::SegmentInfo&) override {
        ++asked;
        if (down) return fail(ErrorKind::retry, "down");
        return Bytes(100, std::byte(asked));
    }
    wire::SegmentInfo add(uint64_t first_position) {
        wire::SegmentInfo info;
        info.first_position = first_position;
        info.segment = Uuid::random();
        infos.push_back(info);
        return info;
    }
    std::vector<wire::SegmentInfo> infos;
    unsigned asked = 0;
    bool down = false;
};

}  // namespace

TEST_CASE("what fits is asked for once, and what does not is not kept, nor what follows it") {
    const Uuid disk = Uuid::random();
    Server look, restore;
    cli::KeptSegments kept(250);
    kept.read_from(look);
    for (const uint64_t first : {1, 5, 9, 13}) look.add(first);
    for (const auto& info : look.infos) REQUIRE(kept.fetch(disk, info));
    CHECK(look.asked == 4);
    kept.read_from(restore);
    CHECK(*kept.fetch(disk, look.infos[0]) == Bytes(100, std::byte(1)));
    CHECK(*kept.fetch(disk, look.infos[1]) == Bytes(100, std::byte(2)));
    CHECK(restore.asked == 0);
    REQUIRE(kept.fetch(disk, look.infos[2]));
    REQUIRE(kept.fetch(disk, look.infos[3]));
    REQUIRE(kept.fetch(disk, look.infos[3]));
    CHECK(restore.asked == 3);
}

TEST_CASE("a segment of another id at the same position is another segment") {
    const Uuid disk = Uuid::random();
    Server server;
    cli::KeptSegments kept(1000);
    kept.read_from(server);
    REQUIRE(kept.fetch(disk, server.add(1)));
    REQUIRE(kept.fetch(disk, server.add(1)));
    CHECK(server.asked == 2);
    CHECK(kept.segments(disk, 0, 10)->size() == 2);
}

TEST_CASE("a failed download is the caller's to see, and is not kept") {
    const Uuid disk = Uuid::random();
    Server server;
    cli::KeptSegments kept(1000);
    kept.read_from(server);
    const auto info = server.add(1);
    server.down = true;
    REQUIRE_FALSE(kept.fetch(disk, info));
    server.down = false;
    REQUIRE(kept.fetch(disk, info));
    REQUIRE(kept.fetch(disk, info));
    CHECK(server.asked == 2);
}
