// SPDX-License-Identifier: Apache-2.0
// The blocks of a meta device: torn anywhere, the one before counts; nothing insane gets through; the
// worked example of docs/formats/dirty_map.md.
#include <cstring>
#include <functional>
#include <random>
#include <vector>

#include "core.hpp"
#include "tests/catch.hpp"

namespace {

constexpr u8 kTracking[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
using Block = std::vector<u8>;

Block bitmap_block(u64 sequence, u64 word) {
    std::vector<u64> bits(CBT_META_WORDS_PER_BLOCK, word), none(bits.size());
    Block block(CBT_META_BLOCK_BYTES);
    cbt_bitmap_encode(bits.data(), none.data(), bits.size(), 0, sequence, kTracking, block.data());
    return block;
}

Block activity_block(u64 sequence, u32 first) {
    std::vector<u32> numbers(CBT_ACTIVITY_REGIONS_MAX);
    for (u32 i = 0; i < numbers.size(); i++) numbers[i] = first + i;
    Block block(CBT_META_BLOCK_BYTES);
    cbt_activity_encode(numbers.data(), static_cast<u32>(numbers.size()), sequence, kTracking, block.data());
    return block;
}

Block cookie_block(u64 sequence, char fill) {
    std::vector<char> data(CBT_META_COOKIE_BYTES_MAX, fill);
    Block block(CBT_META_BLOCK_BYTES);
    cbt_cookie_encode(data.data(), CBT_META_COOKIE_BYTES_MAX, sequence, kTracking, block.data());
    return block;
}

cbt_superblock superblock(u64 sequence, u32 state) {
    cbt_superblock value{};
    value.sequence = sequence;
    value.sectors = 1 << 20;
    value.bitmap_blocks = cbt_meta_bitmap_blocks(value.sectors);
    value.activation = sequence;
    value.watch_start = 0x1111111111111111 * sequence;
    value.watch_end = 0x0101010101010101 * sequence;
    value.state = state;
    value.gap_ns = 0xffffffff00000000 + sequence;
    std::memcpy(value.tracking, kTracking, 16);
    return value;
}

Block superblock_block(u64 sequence, u32 state) {
    Block block(CBT_META_BLOCK_BYTES);
    cbt_superblock value = superblock(sequence, state);
    cbt_superblock_encode(&value, block.data());
    return block;
}

struct Kind {
    const char* name;
    u32 kind;
    Block before, now;  // sequences 6 (first of the pair's turn after 5) ...
    Block older;
};

std::vector<Kind> kinds() {
    return {
        {"superblock", CBT_META_SUPERBLOCK, superblock_block(5, CBT_META_ACTIVE), superblock_block(6, CBT_META_CLEAN),
         superblock_block(4, CBT_META_NEW)},
        {"cookie", CBT_META_COOKIE, cookie_block(5, 'a'), cookie_block(6, 'b'), cookie_block(4, 'c')},
        {"activity", CBT_META_ACTIVITY, activity_block(5, 7), activity_block(6, 100000), activity_block(4, 3000000)},
        {"bitmap", CBT_META_BITMAP, bitmap_block(5, 0xaaaaaaaaaaaaaaaa), bitmap_block(6, 0x5555555555555555),
         bitmap_block(4, 0x123456789)},
    };
}

// Sequence 5 is in the second place; 6 is written over 4 in the first, and torn.
void torn(const Kind& kind, const Block& first) {
    Block pair = first;
    pair.insert(pair.end(), kind.before.begin(), kind.before.end());
    u64 sequence = 0;
    int which = cbt_meta_newest(pair.data(), kind.kind, 0, kTracking, &sequence);
    if (first == kind.now) {
        REQUIRE(which == 0);
        REQUIRE(sequence == 6);
    } else {
        INFO(kind.name);
        REQUIRE(which == 1);
        REQUIRE(sequence == 5);
    }
}

}  // namespace

TEST_CASE("crc32c is that of the published vectors") {
    CHECK(cbt_crc32c(0, "123456789", 9) == 0xe3069283u);
    CHECK(cbt_crc32c(0, std::vector<u8>(32, 0).data(), 32) == 0x8a9136aau);
    CHECK(cbt_crc32c(0, std::vector<u8>(32, 0xff).data(), 32) == 0x62a8ab43u);
    CHECK(cbt_crc32c(cbt_crc32c(0, "1234", 4), "56789", 5) == 0xe3069283u);
}

TEST_CASE("every torn prefix of every block recovers to the block before it") {
    for (const Kind& kind : kinds()) {
        for (size_t bytes = 0; bytes <= CBT_META_BLOCK_BYTES; bytes++) {
            Block first = kind.older;
            std::copy(kind.now.begin(), kind.now.begin() + static_cast<std::ptrdiff_t>(bytes), first.begin());
            torn(kind, first);
        }
    }
}

TEST_CASE("every choice of written sectors of every block recovers to the block before it") {
    for (const Kind& kind : kinds()) {
        for (unsigned choice = 0; choice < 256; choice++) {
            Block first = kind.older;
            for (unsigned sector = 0; sector < 8; sector++)
                if (choice >> sector & 1)
                    std::copy_n(kind.now.begin() + sector * 512, 512, first.begin() + sector * 512);
            // Where the old and the new sectors are alike the block may be whole: then it is one of the two.
            if (first == kind.older) {
                Block pair = first;
                pair.insert(pair.end(), kind.before.begin(), kind.before.end());
                u64 sequence = 0;
                REQUIRE(cbt_meta_newest(pair.data(), kind.kind, 0, kTracking, &sequence) == 1);
                REQUIRE(sequence == 5);
            } else {
                torn(kind, first);
            }
        }
    }
}

TEST_CASE("a block of another kind, place, version or tracking is refused") {
    Block block = bitmap_block(9, 1);
    CHECK(cbt_meta_check(block.data(), CBT_META_BITMAP, 0, kTracking) == 9);
    CHECK(cbt_meta_check(block.data(), CBT_META_BITMAP, 0, nullptr) == 9);
    CHECK(cbt_meta_check(block.data(), CBT_META_ACTIVITY, 0, kTracking) == 0);
    CHECK(cbt_meta_check(block.data(), CBT_META_BITMAP, 1, kTracking) == 0);
    u8 other[16] = {9};
    CHECK(cbt_meta_check(block.data(), CBT_META_BITMAP, 0, other) == 0);
    for (size_t byte = 0; byte < block.size(); byte += 5) {
        block[byte] ^= 0x10;
        REQUIRE(cbt_meta_check(block.data(), CBT_META_BITMAP, 0, kTracking) == 0);
        block[byte] ^= 0x10;
    }
}

TEST_CASE("superblock, activity, cookie and bitmap come back as they were") {
    Block pair(2 * CBT_META_BLOCK_BYTES);
    cbt_superblock in = superblock(3, CBT_META_ACTIVE), out{};
    in.flags = CBT_META_FLAG_WATCH_OPEN;
    in.gap = HERALD_CBT_CAUSE_CHANGED;
    in.gap_cause = HERALD_CBT_CAUSE_WATCH_OPEN;
    cbt_superblock_encode(&in, pair.data() + CBT_META_BLOCK_BYTES);
    REQUIRE(cbt_superblock_decode(pair.data(), &out));
    CHECK(std::memcmp(&in, &out, sizeof(in)) == 0);

    Block activity = activity_block(1, 50);
    std::vector<u32> numbers(CBT_ACTIVITY_REGIONS_MAX);
    u32 count = 0;
    REQUIRE(cbt_activity_decode(activity.data(), 50 + CBT_ACTIVITY_REGIONS_MAX, numbers.data(), &count));
    CHECK(count == CBT_ACTIVITY_REGIONS_MAX);
    CHECK(numbers.back() == 50 + CBT_ACTIVITY_REGIONS_MAX - 1);

    Block cookie = cookie_block(1, 'x');
    u32 bytes = 0;
    const void* data = cbt_cookie_decode(cookie.data(), &bytes);
    REQUIRE(data != nullptr);
    CHECK(bytes == CBT_META_COOKIE_BYTES_MAX);
    CHECK(static_cast<const char*>(data)[bytes - 1] == 'x');

    std::vector<u64> one(1000), two(1000), got(1000);
    one[503] = 1;
    one[504] = 2;
    two[504] = 4;
    two[999] = 8;
    Block block(CBT_META_BLOCK_BYTES);
    for (u64 index = 0; index < 2; index++) {
        cbt_bitmap_encode(one.data(), two.data(), 1000, index, 1, kTracking, block.data());
        CHECK(cbt_bitmap_decode(block.data(), index, got.data(), 1000));
    }
    CHECK(got[503] == 1);
    CHECK(got[504] == 6);
    CHECK(got[999] == 8);
}

TEST_CASE("whole blocks with insane contents are refused") {
    Block activity = activity_block(1, 50);
    std::vector<u32> numbers(CBT_ACTIVITY_REGIONS_MAX);
    u32 count = 0;
    CHECK_FALSE(cbt_activity_decode(activity.data(), 60, numbers.data(), &count));
    reinterpret_cast<u32*>(activity.data() + 64)[0] = CBT_ACTIVITY_REGIONS_MAX + 1;
    CHECK_FALSE(cbt_activity_decode(activity.data(), ~0u, numbers.data(), &count));
    Block cookie = cookie_block(1, 'x');
    reinterpret_cast<u32*>(cookie.data() + 64)[0] = CBT_META_COOKIE_BYTES_MAX + 1;
    u32 bytes = 0;
    CHECK(cbt_cookie_decode(cookie.data(), &bytes) == nullptr);

    auto refused = [](const std::function<void(cbt_superblock&)>& change) {
        Block pair(2 * CBT_META_BLOCK_BYTES);
        cbt_superblock value = superblock(3, CBT_META_ACTIVE), out{};
        change(value);
        cbt_superblock_encode(&value, pair.data());
        return !cbt_superblock_decode(pair.data(), &out);
    };
    CHECK_FALSE(refused([](cbt_superblock&) {}));
    CHECK(refused([](cbt_superblock& value) { value.sectors = 0; }));
    CHECK(refused([](cbt_superblock& value) { value.sectors = HERALD_CBT_DISK_SECTORS_MAX + 1; }));
    CHECK(refused([](cbt_superblock& value) { value.bitmap_blocks--; }));
    CHECK(refused([](cbt_superblock& value) { value.bitmap_blocks = ~0ull; }));
    CHECK(refused([](cbt_superblock& value) { value.state = 0; }));
    CHECK(refused([](cbt_superblock& value) { value.state = 5; }));
    CHECK(refused([](cbt_superblock& value) { value.gap = HERALD_CBT_CAUSE_COUNT; }));
}

TEST_CASE("a formatted meta device has one whole block of each pair, and reads as new and clean") {
    u64 sectors = (5ull << 30) / 512 + 8;
    REQUIRE(cbt_meta_bitmap_blocks(sectors) == 3);
    u64 blocks = cbt_meta_blocks(sectors);
    REQUIRE(blocks == 14);
    std::vector<u8> device(blocks * CBT_META_BLOCK_BYTES, 0xee);
    for (u64 i = 0; i < blocks; i++) cbt_meta_format(sectors, kTracking, i, device.data() + i * CBT_META_BLOCK_BYTES);
    cbt_superblock out{};
    REQUIRE(cbt_superblock_decode(device.data(), &out));
    CHECK(out.state == CBT_META_NEW);
    CHECK(out.sectors == sectors);
    CHECK(std::memcmp(out.tracking, kTracking, 16) == 0);
    u64 sequence = 0;
    CHECK(cbt_meta_newest(device.data() + 2 * 4096, CBT_META_COOKIE, 0, kTracking, &sequence) == 1);
    CHECK(cbt_meta_newest(device.data() + 4 * 4096, CBT_META_ACTIVITY, 0, kTracking, &sequence) == 1);
    std::vector<u64> words(cbt_bitmap_words(cbt_blocks_of_sectors(sectors)));
    for (u64 i = 0; i < 3; i++) {
        u8* pair = device.data() + (8 + 2 * i) * 4096;
        REQUIRE(cbt_meta_newest(pair, CBT_META_BITMAP, i, kTracking, &sequence) == 1);
        CHECK_FALSE(cbt_bitmap_decode(pair + 4096, i, words.data(), words.size()));
    }
    CHECK(cbt_meta_blocks(HERALD_CBT_DISK_SECTORS_MAX) * CBT_META_BLOCK_BYTES < (280ull << 20));
}

TEST_CASE("the worked example of docs/formats/dirty_map.md is what is written") {
    u32 numbers[2] = {3, 1024};
    Block block(CBT_META_BLOCK_BYTES);
    cbt_activity_encode(numbers, 2, 7, kTracking, block.data());
    const u8 expected[] = {
        0x43, 0x42, 0x4d, 0x54, 0x69, 0x2e, 0x5a, 0x7a, 0x01, 0x00, 0x03, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x07, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f, 0x10,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x02, 0x00, 0x00, 0x00, 0x03, 0x00, 0x00, 0x00, 0x00, 0x04, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    };
    Block got(block.begin(), block.begin() + sizeof(expected));
    CHECK(got == Block(expected, expected + sizeof(expected)));
}
