// SPDX-License-Identifier: Apache-2.0
#include "user/tracker/cbt_cookie.h"

#include "herald/abi/cbt.h"
#include "herald/limits.h"
#include "tests/catch.hpp"

using namespace herald;

namespace {

tracker::Continuity full() {
    tracker::Continuity continuity;
    continuity.disk = Uuid::random();
    continuity.session = Uuid::random();
    continuity.next_session = Uuid::random();
    continuity.acked_position = 1ull << 60;
    continuity.synced = true;
    for (unsigned i = 0; i < HERALD_SENT_SEGMENTS_MAX; ++i) {
        continuity.sent.push_back({i * 1000ull, Uuid::random()});
    }
    return continuity;
}

}  // namespace

TEST_CASE("a cookie holds the largest continuity and gives it back") {
    const tracker::Continuity before = full();
    const Bytes bytes = tracker::encode_cookie(before);
    CHECK(bytes.size() <= HERALD_CBT_COOKIE_BYTES_MAX);
    const auto after = tracker::decode_cookie(bytes);
    REQUIRE(after);
    CHECK(after->disk == before.disk);
    CHECK(after->session == before.session);
    CHECK(after->next_session == before.next_session);
    CHECK(after->acked_position == before.acked_position);
    CHECK(after->synced);
    CHECK(after->sent == before.sent);
    CHECK(tracker::decode_cookie(tracker::encode_cookie({}))->session.is_nil());
}

TEST_CASE("what is cut, longer or changed in any byte is no cookie") {
    const Bytes bytes = tracker::encode_cookie(full());
    for (size_t size = 0; size < bytes.size(); ++size) {
        REQUIRE_FALSE(tracker::decode_cookie(ByteView(bytes).first(size)));
    }
    for (size_t at = 0; at < bytes.size(); ++at) {
        Bytes changed = bytes;
        changed[at] ^= std::byte{0x10};
        REQUIRE_FALSE(tracker::decode_cookie(changed));
    }
    Bytes longer = bytes;
    longer.push_back({});
    CHECK_FALSE(tracker::decode_cookie(longer));
}
