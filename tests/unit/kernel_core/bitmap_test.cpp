// SPDX-License-Identifier: Apache-2.0
// The dirty map's bits against a model.
#include <random>
#include <set>
#include <vector>

#include "core.hpp"
#include "tests/catch.hpp"

TEST_CASE("bits are those of the blocks that were set, clipped to the map") {
    constexpr u64 kBlocks = 1000;
    std::vector<u64> words(cbt_bitmap_words(kBlocks));
    cbt_bitmap bitmap{};
    cbt_bitmap_init(&bitmap, words.data(), kBlocks);
    std::set<u64> model;
    std::mt19937 random(3);
    for (int round = 0; round < 3000; round++) {
        u64 first = random() % 1100, count = random() % 200;
        switch (random() % 12) {
            case 0:
                cbt_bitmap_clear(&bitmap);
                model.clear();
                break;
            case 1:
                cbt_bitmap_clip(&bitmap, first);
                model.erase(model.lower_bound(first), model.end());
                break;
            default:
                cbt_bitmap_set(&bitmap, first, count);
                for (u64 i = first; i < first + count && i < kBlocks; i++) model.insert(i);
        }
        REQUIRE(cbt_bitmap_count(&bitmap) == model.size());
        for (u64 i = 0; i < kBlocks; i += 1 + random() % 50) REQUIRE(cbt_bitmap_test(&bitmap, i) == model.contains(i));
    }
    cbt_bitmap_set(&bitmap, 5, ~0ull);
    CHECK(cbt_bitmap_count(&bitmap) >= kBlocks - 5);
    CHECK(words.back() >> (kBlocks % 64) == 0);
}

TEST_CASE("a range of sectors sets every block that it touches") {
    std::vector<u64> words(2);
    cbt_bitmap bitmap{};
    cbt_bitmap_init(&bitmap, words.data(), 100);
    cbt_bitmap_set_sectors(&bitmap, 127, 0);
    CHECK(cbt_bitmap_is_empty(&bitmap));
    cbt_bitmap_set_sectors(&bitmap, 127, 2);
    CHECK(words[0] == 3);
    cbt_bitmap_set_sectors(&bitmap, 256, 128);
    CHECK(words[0] == 7);
    CHECK(cbt_blocks_of_sectors(1) == 1);
    CHECK(cbt_blocks_of_sectors(128) == 1);
    CHECK(cbt_blocks_of_sectors(129) == 2);
}
