// SPDX-License-Identifier: Apache-2.0
// What of an LZ4 block is valid near its end: the rules of docs/formats/hrl.md, which the LZ4
// library keeps but for one case.
#include "user/hrl/lz4_block.h"

#include <lz4.h>

#include <random>

#include "tests/catch.hpp"

using namespace herald;
using namespace herald::hrl;

namespace {

// Literals and a match without long lengths, then the last literals.
Bytes block_of(size_t literals, size_t match, uint16_t offset, size_t last) {
    Bytes block;
    block.push_back(std::byte(literals << 4 | (match - 4)));
    for (size_t i = 0; i < literals; ++i) block.push_back(std::byte(i));
    block.resize(block.size() + sizeof offset);
    store_le(block.data() + block.size() - sizeof offset, offset);
    block.push_back(std::byte(last << 4));
    block.resize(block.size() + last, std::byte{0x77});
    return block;
}

bool taken(ByteView block, size_t raw_bytes) {
    Bytes raw(raw_bytes);
    return decompress_lz4(block, raw);
}

}  // namespace

TEST_CASE("an LZ4 block ends in five literals, and no match begins in its last twelve bytes") {
    for (size_t last = 0; last < 14; ++last) {
        INFO(last << " last literals");
        CHECK(taken(block_of(14, 18, 8, last), 32 + last) == (last >= 5));
        CHECK(taken(block_of(14, 17, 8, last), 31 + last) == (last >= 5));
        CHECK(taken(block_of(14, 4, 8, last), 18 + last) == (last >= 8));
        CHECK_FALSE(taken(block_of(14, 18, 8, last), 33 + last));
        CHECK_FALSE(taken(block_of(14, 18, 8, last), 31 + last));
    }
    // A block without a match may be as short as it likes.
    for (unsigned literals = 1; literals < 6; ++literals) {
        Bytes block{std::byte(literals << 4)};
        block.resize(1 + literals);
        CHECK(taken(block, literals));
    }
}

TEST_CASE("what the LZ4 library compressed is always taken") {
    std::mt19937_64 random(3);
    for (int round = 0; round < 2000; ++round) {
        // Few values, so that many a block looks at its end as if a match were the last.
        Bytes raw(13 + random() % 300);
        for (std::byte& b : raw) b = std::byte(random() % 3 * (round % 17));
        Bytes block(size_t(LZ4_compressBound(int(raw.size()))));
        const int size = LZ4_compress_default(reinterpret_cast<const char*>(raw.data()),
                                              reinterpret_cast<char*>(block.data()),
                                              int(raw.size()), int(block.size()));
        REQUIRE(size > 0);
        Bytes back(raw.size());
        if (!decompress_lz4(ByteView(block).first(size_t(size)), back)) FAIL("round " << round);
        CHECK(back == raw);
    }
}
