// SPDX-License-Identifier: Apache-2.0
// When the mode sinks and climbs, and when a generation is sealed and its bits may go.
#include <memory>
#include <vector>

#include "core.hpp"
#include "tests/catch.hpp"

namespace {

struct Ring {
    Ring() : header(std::make_unique<herald_cbt_header_abi>()), slots(8) {
        cbt_ring_init(&ring, header.get(), slots.data(), 8, 4096);
    }
    std::unique_ptr<herald_cbt_header_abi> header;
    std::vector<herald_cbt_slot_abi> slots;
    cbt_ring ring{};
};

}  // namespace

TEST_CASE("the mode only sinks until it climbs, and climbs when half is free") {
    Ring ring;
    cbt_mode mode{};
    cbt_mode_init(&mode, HERALD_CBT_MODE_ORDERED, HERALD_CBT_CAUSE_CLIMBED, 10);
    CHECK(cbt_mode_sink(&mode, HERALD_CBT_MODE_MAP, HERALD_CBT_CAUSE_SLOTS_FULL, 30));
    CHECK_FALSE(cbt_mode_sink(&mode, HERALD_CBT_MODE_EXTENTS, HERALD_CBT_CAUSE_PAYLOAD_FULL, 40));
    CHECK_FALSE(cbt_mode_sink(&mode, HERALD_CBT_MODE_MAP, HERALD_CBT_CAUSE_PAYLOAD_FULL, 40));
    CHECK(mode.cause == HERALD_CBT_CAUSE_SLOTS_FULL);
    CHECK(mode.spent_ns[HERALD_CBT_MODE_ORDERED - 1] == 20);

    ring.ring.head = 5;
    CHECK(cbt_mode_reachable(&mode, &ring.ring) == HERALD_CBT_MODE_MAP);
    ring.ring.tail = 1;
    CHECK(cbt_mode_reachable(&mode, &ring.ring) == HERALD_CBT_MODE_ORDERED);
    ring.ring.payload_head = 2048 + 512;
    CHECK(cbt_mode_reachable(&mode, &ring.ring) == HERALD_CBT_MODE_EXTENTS);
    cbt_mode_climb(&mode, HERALD_CBT_MODE_EXTENTS, 50);
    CHECK(cbt_mode_reachable(&mode, &ring.ring) == HERALD_CBT_MODE_EXTENTS);
    ring.ring.payload_tail = 512;
    CHECK(cbt_mode_reachable(&mode, &ring.ring) == HERALD_CBT_MODE_ORDERED);
}

TEST_CASE("without a payload area extents is the highest mode") {
    Ring ring;
    ring.ring.payload_bytes = 0;
    cbt_mode mode{};
    cbt_mode_init(&mode, HERALD_CBT_MODE_MAP, HERALD_CBT_CAUSE_ACTIVATED, 0);
    CHECK(cbt_mode_reachable(&mode, &ring.ring) == HERALD_CBT_MODE_EXTENTS);
    ring.ring.slot_count = 0;
    CHECK(cbt_mode_reachable(&mode, &ring.ring) == HERALD_CBT_MODE_MAP);
}

TEST_CASE("sealed bits go when stored reached the sealing and a flush followed") {
    cbt_generations generations{};
    cbt_generations_init(&generations);
    CHECK_FALSE(cbt_generations_may_flush(&generations));
    REQUIRE(cbt_generations_may_seal(&generations, HERALD_CBT_MODE_ORDERED, 0));
    cbt_generations_seal(&generations, 10);
    CHECK_FALSE(cbt_generations_may_seal(&generations, HERALD_CBT_MODE_ORDERED, 0));
    REQUIRE(cbt_generations_acknowledge(&generations, 9, 9, 12));
    CHECK_FALSE(cbt_generations_may_flush(&generations));
    REQUIRE(cbt_generations_acknowledge(&generations, 10, 10, 12));
    CHECK(cbt_generations_may_flush(&generations));
    cbt_generations_flushing(&generations);
    CHECK_FALSE(cbt_generations_may_flush(&generations));
    cbt_generations_flush_failed(&generations);
    CHECK(cbt_generations_may_flush(&generations));
    cbt_generations_flushing(&generations);
    cbt_generations_cleared(&generations);
    CHECK(generations.sealed == 0);
    CHECK(generations.current_number == 2);
}

TEST_CASE("acknowledgements that go back, pass the head or pass received are refused") {
    cbt_generations generations{};
    cbt_generations_init(&generations);
    CHECK(cbt_generations_acknowledge(&generations, 5, 3, 6));
    CHECK_FALSE(cbt_generations_acknowledge(&generations, 4, 3, 6));
    CHECK_FALSE(cbt_generations_acknowledge(&generations, 5, 2, 6));
    CHECK_FALSE(cbt_generations_acknowledge(&generations, 7, 3, 6));
    CHECK_FALSE(cbt_generations_acknowledge(&generations, 5, 6, 6));
    CHECK(generations.received == 5);
    CHECK(generations.stored == 3);
}

TEST_CASE(
    "a generation that needs a scan waits for the climb, for unslotted writes and for the scan") {
    cbt_generations generations{};
    cbt_generations_init(&generations);
    CHECK_FALSE(cbt_generations_scan_due(&generations));
    cbt_generations_need_scan(&generations);
    CHECK(cbt_generations_scan_due(&generations));
    CHECK_FALSE(cbt_generations_may_seal(&generations, HERALD_CBT_MODE_MAP, 0));
    CHECK_FALSE(cbt_generations_may_seal(&generations, HERALD_CBT_MODE_ORDERED, 1));
    REQUIRE(cbt_generations_may_seal(&generations, HERALD_CBT_MODE_EXTENTS, 0));
    cbt_generations_seal(&generations, 0);
    CHECK_FALSE(cbt_generations_may_flush(&generations));
    CHECK_FALSE(cbt_generations_scanned(&generations, 2));
    CHECK_FALSE(cbt_generations_scanned(&generations, 0));
    CHECK(cbt_generations_scan_due(&generations));
    CHECK(cbt_generations_scanned(&generations, 1));
    CHECK_FALSE(cbt_generations_scan_due(&generations));
    CHECK(cbt_generations_may_flush(&generations));
    CHECK(generations.current_flags == HERALD_CBT_GENERATION_EXISTS);
}

TEST_CASE("a new owner learns by a scan what the last one released and did not store") {
    cbt_generations generations{};
    cbt_generations_init(&generations);
    cbt_generations_seal(&generations, 8);
    REQUIRE(cbt_generations_acknowledge(&generations, 6, 4, 10));
    cbt_generations_owner(&generations, 4);
    CHECK(generations.received == 4);
    CHECK(generations.sealed_flags == HERALD_CBT_GENERATION_EXISTS);
    cbt_generations_owner(&generations, 7);
    CHECK(generations.stored == 7);
    CHECK((generations.sealed_flags & HERALD_CBT_GENERATION_NEEDS_SCAN) != 0);
    CHECK((generations.current_flags & HERALD_CBT_GENERATION_NEEDS_SCAN) != 0);
    REQUIRE(cbt_generations_acknowledge(&generations, 8, 8, 10));
    CHECK_FALSE(cbt_generations_may_flush(&generations));
}
