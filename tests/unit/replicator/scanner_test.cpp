// SPDX-License-Identifier: Apache-2.0
#include "user/replicator/scanner.h"

#include <random>

#include "tests/catch.hpp"

using namespace herald;
using namespace herald::replicator;

namespace {

constexpr uint64_t kBlock = HERALD_BLOCK_BYTES;

struct Kept {
    hrl::RecordKind kind;
    uint64_t offset;
    uint64_t length;
    bool operator==(const Kept&) const = default;
};

std::vector<Kept> complete(Scanner& scanner, const Chunk& chunk, ByteView data) {
    std::vector<Kept> kept;
    auto run = scanner.completed(chunk.id, data, [&](const hrl::Record& record) -> Result<void> {
        kept.push_back({record.kind, record.offset, record.length});
        if (record.kind == hrl::RecordKind::write) REQUIRE(record.data.size() == record.length);
        return {};
    });
    REQUIRE(run);
    REQUIRE(*run == chunk.run);
    return kept;
}

hrl::Record write_at(uint64_t offset, uint64_t length) {
    hrl::Record record;
    record.offset = offset;
    record.length = length;
    return record;
}

}  // namespace

TEST_CASE("scanner makes zero blocks zeroes and merges neighbours of one kind") {
    Scanner scanner(64 * kBlock);
    const Chunk chunk = scanner.begin({8, 6});
    Bytes data(chunk.length);
    for (uint64_t block : {2, 3, 5}) data[block * kBlock + 77] = std::byte{1};
    const auto kept = complete(scanner, chunk, data);
    using K = hrl::RecordKind;
    REQUIRE(kept == std::vector<Kept>{{K::zeroes, 8 * kBlock, 2 * kBlock},
                                      {K::write, 10 * kBlock, 2 * kBlock},
                                      {K::zeroes, 12 * kBlock, kBlock},
                                      {K::write, 13 * kBlock, kBlock}});
    REQUIRE(scanner.in_flight() == 0);
}

TEST_CASE("scanner cuts long data into records of a block of a segment each") {
    Scanner scanner(64 * kBlock);
    const Chunk chunk = scanner.begin({0, 9});
    const Bytes data(chunk.length, std::byte{7});
    const auto kept = complete(scanner, chunk, data);
    REQUIRE(kept.size() == 3);
    REQUIRE(kept[0].length == HERALD_HRL_BLOCK_BYTES_MAX);
    REQUIRE(kept[2].length == kBlock);
}

TEST_CASE("scanner clips the last block to the disk's end") {
    Scanner scanner(3 * kBlock + 512);
    const Chunk chunk = scanner.begin({2, 2});
    REQUIRE(chunk.length == kBlock + 512);
    const auto kept = complete(scanner, chunk, Bytes(chunk.length));
    REQUIRE(kept == std::vector<Kept>{{hrl::RecordKind::zeroes, 2 * kBlock, kBlock + 512}});
}

TEST_CASE("scanner drops what ordered records overlap while a read is in flight") {
    Scanner scanner(64 * kBlock);
    const Chunk chunk = scanner.begin({0, 2});
    scanner.observe(write_at(512, 1024));
    scanner.observe(write_at(kBlock + 4096, 64 * kBlock));
    scanner.observe(write_at(10 * kBlock, kBlock));
    hrl::Record marker;
    marker.kind = hrl::RecordKind::tag;
    scanner.observe(marker);
    const Bytes data(chunk.length, std::byte{3});
    using K = hrl::RecordKind;
    REQUIRE(complete(scanner, chunk, data) ==
            std::vector<Kept>{{K::write, 0, 512}, {K::write, 1536, kBlock + 2560}});
}

TEST_CASE("scanner hands out nothing of a chunk that newer records cover whole") {
    Scanner scanner(64 * kBlock);
    const Chunk chunk = scanner.begin({4, 1});
    scanner.observe(write_at(4 * kBlock, 512));
    scanner.observe(write_at(4 * kBlock + 512, kBlock - 512));
    REQUIRE(complete(scanner, chunk, Bytes(chunk.length, std::byte{9})).empty());
}

TEST_CASE("a record that ended before the read began does not cut the chunk") {
    Scanner scanner(64 * kBlock);
    scanner.observe(write_at(0, kBlock));
    const Chunk chunk = scanner.begin({0, 1});
    REQUIRE(complete(scanner, chunk, Bytes(chunk.length, std::byte{9})).size() == 1);
}

TEST_CASE("scan rule: any interleaving of ordered writes and reads gives the disk's content") {
    const char* text = std::getenv("HERALD_SEED");
    const uint64_t seed = text ? std::strtoull(text, nullptr, 10) : std::random_device{}();
    INFO("HERALD_SEED=" << seed);
    std::mt19937_64 random(seed);
    constexpr uint64_t kBlocks = 8;
    for (int round = 0; round < 200; ++round) {
        Bytes disk(kBlocks * kBlock);
        Bytes replica(disk.size(), std::byte{0xee});
        Scanner scanner(disk.size());
        struct Read {
            Chunk chunk;
            Bytes data;  // as the device returned it, at some moment while in flight
            bool read = false;
        };
        std::vector<Read> reads;
        const auto apply = [&](const hrl::Record& record) -> Result<void> {
            auto at = replica.begin() + std::ptrdiff_t(record.offset);
            if (record.kind == hrl::RecordKind::zeroes) {
                std::fill_n(at, record.length, std::byte{0});
            } else {
                std::copy(record.data.begin(), record.data.end(), at);
            }
            return {};
        };
        uint64_t next_block = 0;
        while (next_block < kBlocks || !reads.empty()) {
            switch (random() % 4) {
                case 0:
                    if (next_block < kBlocks) {
                        const uint64_t count = 1 + random() % (kBlocks - next_block);
                        reads.push_back({scanner.begin({next_block, count}), {}, false});
                        next_block += count;
                    }
                    break;
                case 1: {
                    const uint64_t offset = random() % (disk.size() / 512) * 512;
                    const uint64_t length =
                        std::min<uint64_t>(512 * (1 + random() % 200), disk.size() - offset);
                    const Bytes data(length, std::byte(random()));
                    std::copy(data.begin(), data.end(), disk.begin() + std::ptrdiff_t(offset));
                    hrl::Record record = write_at(offset, length);
                    record.data = data;
                    REQUIRE(apply(record));
                    scanner.observe(record);
                    break;
                }
                case 2:
                    for (Read& read : reads) {
                        if (read.read || random() % 2) continue;
                        const auto at = disk.begin() + std::ptrdiff_t(read.chunk.offset);
                        read.data.assign(at, at + std::ptrdiff_t(read.chunk.length));
                        read.read = true;
                    }
                    break;
                case 3:
                    if (!reads.empty()) {
                        const size_t i = random() % reads.size();
                        if (!reads[i].read) break;
                        REQUIRE(scanner.completed(reads[i].chunk.id, reads[i].data, apply));
                        reads.erase(reads.begin() + std::ptrdiff_t(i));
                    }
                    break;
            }
        }
        REQUIRE(replica == disk);
    }
}
