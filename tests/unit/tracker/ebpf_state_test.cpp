// SPDX-License-Identifier: Apache-2.0
#include "user/tracker/ebpf_state.h"

#include <cstring>

#include "tests/catch.hpp"

using namespace herald;
using namespace herald::tracker;

namespace {

Continuity numbered(uint64_t number) {
    Continuity continuity;
    continuity.disk = Uuid::random();
    continuity.session = Uuid::random();
    continuity.next_session = Uuid::random();
    continuity.acked_position = number;
    continuity.synced = number % 2 == 1;
    // None, some, all that there is room for.
    for (uint64_t i = 0; i < number * HERALD_SENT_SEGMENTS_MAX / 4; ++i) {
        continuity.sent.push_back({number + i, Uuid::random()});
    }
    return continuity;
}

bool same(const Continuity& a, const Continuity& b) {
    return a.disk == b.disk && a.session == b.session && a.next_session == b.next_session &&
           a.acked_position == b.acked_position && a.synced == b.synced && a.sent == b.sent;
}

}  // namespace

TEST_CASE("continuity is read as it was set, time after time") {
    StateDisk memory{};
    for (uint64_t i = 0; i < 5; ++i) {
        const Continuity continuity = numbered(i);
        EbpfState(memory).set_continuity(continuity);
        CHECK(same(EbpfState(memory).continuity(), continuity));
    }
}

TEST_CASE("a half-written continuity is not read") {
    StateDisk memory{};
    const Continuity before = numbered(1);
    EbpfState(memory).set_continuity(before);
    // Death in the middle of the next one: its slot is written, its number is not.
    std::memset(&memory.continuity[(memory.continuity_number + 1) & 1], 0xff,
                sizeof memory.continuity[0]);
    CHECK(same(EbpfState(memory).continuity(), before));
}

TEST_CASE("the first gap is kept, cut to its room, until it is cleared") {
    StateDisk memory{};
    EbpfState state(memory);
    CHECK(state.gap() == std::nullopt);
    state.set_gap(std::string(1000, 'x'));
    state.set_gap("another");
    CHECK(state.gap() == std::string(sizeof memory.gap - 1, 'x'));
    state.clear_gap();
    CHECK(state.gap() == std::nullopt);
    state.set_gap("another");
    CHECK(state.gap() == "another");
}
