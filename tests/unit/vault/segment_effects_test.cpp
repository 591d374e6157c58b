// SPDX-License-Identifier: Apache-2.0
#include "user/vault/segment_effects.h"

#include <map>
#include <random>

#include "herald/limits.h"
#include "tests/stream_builder.h"

using namespace herald;
using vault::SegmentEffects;

namespace {

constexpr uint64_t kChunk = HERALD_BLOCK_BYTES;

Result<SegmentEffects> effects_of(const test::StreamBuilder& stream) {
    SegmentEffects effects(stream.header());
    for (auto [record, data] : stream.records()) {
        record.data = data;
        auto observed = effects.observe(record);
        if (!observed) return pass(observed);
    }
    return effects;
}

std::map<uint64_t, Digest128> digests_of(const SegmentEffects& effects) {
    std::map<uint64_t, Digest128> digests;
    for (const vault::DigestRun& run : effects.digests()) {
        for (uint64_t i = 0; i < run.chunks; ++i) digests[run.first_chunk + i] = run.digest;
    }
    return digests;
}

test::StreamBuilder stream_of(uint64_t disk_bytes) {
    return test::StreamBuilder(Uuid::random(), Uuid::random(), disk_bytes);
}

}  // namespace

TEST_CASE("a whole chunk gets its digest, a part of one makes it unknown") {
    auto stream = stream_of(8 * kChunk);
    stream.write(0, kChunk, 1).write(kChunk, 512, 2).write(2 * kChunk - 512, 1024 + kChunk, 3);
    auto effects = effects_of(stream);
    REQUIRE(effects);
    const auto digests = digests_of(*effects);
    CHECK(digests.at(0) == xxh3_128(Bytes(kChunk, std::byte{1})));
    CHECK(digests.at(1).is_unknown());
    CHECK(digests.at(2) == xxh3_128(Bytes(kChunk, std::byte{3})));
    CHECK(digests.at(3).is_unknown());
    CHECK(digests.size() == 4);
}

TEST_CASE("the last chunk of a disk may be short and has the digest of its own bytes") {
    auto stream = stream_of(kChunk + 1024);
    stream.write(kChunk, 1024, 5);
    CHECK(digests_of(*effects_of(stream)).at(1) == xxh3_128(Bytes(1024, std::byte{5})));
    stream.zeroes(0, kChunk + 1024);
    const auto digests = digests_of(*effects_of(stream));
    CHECK(digests.at(0) == xxh3_128(Bytes(kChunk)));
    CHECK(digests.at(1) == xxh3_128(Bytes(1024)));
    stream.write(kChunk, 512, 6);
    CHECK(digests_of(*effects_of(stream)).at(1).is_unknown());
}

TEST_CASE("a discard makes every chunk it touches unknown") {
    auto stream = stream_of(4 * kChunk);
    stream.zeroes(0, 4 * kChunk).discard(kChunk - 512, 512 + kChunk);
    const auto digests = digests_of(*effects_of(stream));
    CHECK(digests.at(0).is_unknown());
    CHECK(digests.at(1).is_unknown());
    CHECK_FALSE(digests.at(2).is_unknown());
}

TEST_CASE("a resize makes the chunks at and between both ends unknown") {
    auto stream = stream_of(2 * kChunk + 512);
    stream.zeroes(0, 2 * kChunk + 512).resize(4 * kChunk);
    auto digests = digests_of(*effects_of(stream));
    CHECK_FALSE(digests.at(1).is_unknown());
    CHECK(digests.at(2).is_unknown());
    CHECK(digests.at(3).is_unknown());
    stream.write(2 * kChunk, kChunk, 1);
    CHECK_FALSE(digests_of(*effects_of(stream)).at(2).is_unknown());
}

TEST_CASE(
    "a size that changed between segments makes the chunks at and between both ends unknown") {
    auto stream = stream_of(4 * kChunk);
    stream.write(0, kChunk, 1);
    auto effects = effects_of(stream);
    REQUIRE(effects);
    CHECK(effects->digests_after(0) == effects->digests());
    CHECK(effects->digests_after(4 * kChunk) == effects->digests());
    CHECK(effects->digests_after(2 * kChunk + 512).front() == vault::DigestRun{2, 2, {}});
    CHECK(effects->digests_after(6 * kChunk).front() == vault::DigestRun{4, 2, {}});
    CHECK(effects->digests_after(6 * kChunk).size() == 2);
}

TEST_CASE("zeroes over a huge disk cost one run, and beyond the bound become unknown") {
    const uint64_t chunks = HERALD_DISK_BYTES_MAX / kChunk;
    hrl::SegmentHeader header;
    header.disk_bytes = HERALD_DISK_BYTES_MAX;
    for (const uint64_t count : {uint64_t{HERALD_SEGMENT_ZERO_CHUNKS_MAX}, chunks}) {
        SegmentEffects effects(header);
        hrl::Record record;
        record.kind = hrl::RecordKind::zeroes;
        record.length = count * kChunk;
        REQUIRE(effects.observe(record));
        REQUIRE(effects.digests().size() == 1);
        CHECK(effects.digests()[0].chunks == count);
        CHECK(effects.digests()[0].digest.is_unknown() == (count == chunks));
    }
}

TEST_CASE("a record that leaves the disk is refused: it could never be restored") {
    hrl::SegmentHeader header;
    header.disk_bytes = kChunk;
    for (const auto kind : {hrl::RecordKind::write, hrl::RecordKind::zeroes,
                            hrl::RecordKind::discard, hrl::RecordKind::secure_erase}) {
        SegmentEffects effects(header);
        const Bytes data(1024);
        hrl::Record record;
        record.kind = kind;
        record.offset = kChunk - 512;
        record.length = 1024;
        record.data = data;
        auto observed = effects.observe(record);
        REQUIRE_FALSE(observed);
        CHECK(observed.error().kind == ErrorKind::corrupt);
    }
}

TEST_CASE("markers and digest runs are bounded") {
    hrl::SegmentHeader header;
    header.disk_bytes = 1ull << 40;
    SegmentEffects effects(header);
    hrl::Record record;
    record.kind = hrl::RecordKind::write;
    record.length = 512;
    const Bytes data(512);
    record.data = data;
    for (uint64_t i = 0; i < HERALD_SEGMENT_DIGEST_RUNS_MAX + 10; ++i) {
        record.offset = (i * 2 + 5) * kChunk;
        REQUIRE(effects.observe(record));
    }
    CHECK(effects.digests().size() < 20);
    CHECK(effects.digests()[0].first_chunk == 5);
    CHECK(effects.digests()[0].digest.is_unknown());

    const Bytes payload = hrl::encode_tag({});
    hrl::Record tag;
    tag.kind = hrl::RecordKind::tag;
    tag.data = payload;
    for (unsigned i = 0; i < HERALD_SEGMENT_MARKERS_MAX; ++i) REQUIRE(effects.observe(tag));
    CHECK_FALSE(effects.observe(tag));
}

TEST_CASE("a stream cut into segments anywhere gives the same verdicts and the same state") {
    std::mt19937_64 random(
        std::getenv("HERALD_SEED") ? std::strtoull(std::getenv("HERALD_SEED"), nullptr, 0) : 1);
    for (int round = 0; round < 50; ++round) {
        auto stream = stream_of(8 * kChunk);
        stream.activation(random() % 2 ? hrl::StreamMode::ordered : hrl::StreamMode::unordered);
        for (int i = 0; i < 60; ++i) {
            switch (random() % 8) {
                case 0:
                    stream.scan_begin(random() % 3);
                    break;
                case 1:
                case 2:
                    stream.scan_end(random() % 3, random() % 2);
                    break;
                case 3:
                case 4:
                    stream.tag("t");
                    break;
                case 5:
                    stream.reread(0, 512);
                    break;
                default:
                    stream.write(random() % 100 * 512, 512, 1);
            }
        }
        vault::StreamState whole;
        auto expected = effects_of(stream)->advance(whole);
        REQUIRE(expected);
        vault::StreamState pieces;
        std::vector<vault::TagVerdict> verdicts;
        const auto records = stream.records();
        for (size_t at = 0; at < records.size();) {
            SegmentEffects effects(stream.header());
            for (size_t n = random() % 6 + 1; n > 0 && at < records.size(); --n, ++at) {
                hrl::Record record = records[at].first;
                record.data = records[at].second;
                REQUIRE(effects.observe(record));
            }
            auto tags = effects.advance(pieces);
            REQUIRE(tags);
            verdicts.insert(verdicts.end(), tags->begin(), tags->end());
        }
        CHECK(pieces == whole);
        REQUIRE(verdicts.size() == expected->size());
        for (size_t i = 0; i < verdicts.size(); ++i) {
            CHECK(verdicts[i].refusal == (*expected)[i].refusal);
            CHECK(verdicts[i].position == (*expected)[i].position);
        }
    }
}
