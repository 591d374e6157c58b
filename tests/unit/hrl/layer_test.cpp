// SPDX-License-Identifier: Apache-2.0
// Layers: the same format with records by block, then position, or with positions left out.
#include <map>

#include "tests/unit/hrl/sample_layers.h"
#include "user/base/digest.h"

using namespace herald;
using namespace herald::hrl;
using namespace herald::hrl::test;

namespace {

constexpr ReadOptions kLayers{.layers = true};

}  // namespace

TEST_CASE("a layer by block gives back its records, plain and sealed") {
    const uint64_t seed = seed_from_environment();
    INFO("HERALD_SEED=" << seed);
    const seal::MachineKey key = seal::MachineKey::create(sample_id(0x11));
    seal::Keyring ring;
    ring.add(key.copy());
    for (size_t round = 0; round < 10 * tier_scale(); ++round) {
        const SegmentHeader header = layer_header(uint32_t(512u << (seed + round) % 6));
        const auto records = sorted_for(header, sample_records(seed + round, 200, 1 << 20, 1, 32));
        for (const bool sealed : {false, true}) {
            const Segment layer = write_layer(header, records, 500, sealed ? &key : nullptr);
            const ReadBack back = read_back(layer.bytes, {.keys = &ring, .layers = true});
            CHECK(back.error == "");
            CHECK(back.whole);
            CHECK(back.records == records);
            auto summary = verify_segment(memory_source(layer.bytes, "l"), nullptr,
                                          {.keys = &ring, .layers = true});
            REQUIRE(summary);
            CHECK(summary->last_position == 500);
            CHECK(summary->records == records.size());
        }
    }
}

TEST_CASE("who expects a segment refuses a layer by name") {
    const SegmentHeader header = layer_header(2048);
    const auto records = sorted_for(header, sample_records(60, 20, 1 << 20));
    const ReadBack back = read_back(write_layer(header, records).bytes);
    CHECK_FALSE(back.opened);
    CHECK(back.error.find("it is a layer") != std::string::npos);
}

TEST_CASE("the index of a layer finds the newest version of a granule at any position") {
    const SegmentHeader header = layer_header(1024);
    const auto records = sorted_for(header, sample_records(61, 600, 1 << 17, 1, 8));
    const Segment layer = write_layer(header, records);
    auto reader = SegmentReader::open(memory_source(layer.bytes, "l"), kLayers);
    REQUIRE(reader);
    const auto blocks = reader->blocks();
    REQUIRE(blocks.size() > 20);
    // Markers first, spans next, pieces last; no block holds two of them.
    const auto part_of = [](const IndexEntryDisk& block) {
        if (block.disk_offset_end == 0) return LayerPart::markers;
        return block.kinds & kSpansBit ? LayerPart::spans : LayerPart::pieces;
    };
    CHECK(std::is_sorted(blocks.begin(), blocks.end(),
                         [&](const auto& a, const auto& b) { return part_of(a) < part_of(b); }));
    const auto key_of = [&](const IndexEntryDisk& block) {
        return std::tuple(part_of(block), block.disk_offset_min >> kGranuleLog2,
                          block.first_position);
    };
    for (uint64_t granule = 0; granule < (1 << 17) / kGranule; ++granule) {
        for (const uint64_t position : {1u, 77u, 300u, 555u, 600u}) {
            const Record* newest = nullptr;
            for (const OwnedRecord& record : records) {
                const OrderKey at = order_key(header, record.record);
                if (at.part == LayerPart::pieces && at.granule == granule &&
                    at.position <= position) {
                    newest = &record.record;
                }
            }
            // The last block that begins at or before the key, and on to the end of the granule.
            const auto wanted = std::tuple(LayerPart::pieces, granule, position);
            const auto after =
                std::upper_bound(blocks.begin(), blocks.end(), wanted,
                                 [&](const auto& k, const auto& b) { return k < key_of(b); });
            std::optional<Record> found;
            if (after != blocks.begin()) {
                REQUIRE(reader->seek(uint32_t(after - blocks.begin() - 1)));
                for (;;) {
                    auto record = reader->next();
                    REQUIRE(record);
                    if (!*record) break;
                    const OrderKey at = order_key(header, **record);
                    if (at.part != LayerPart::pieces || at.granule < granule) continue;
                    if (at.granule > granule || at.position > position) break;
                    found = **record;
                }
            }
            REQUIRE(found.has_value() == (newest != nullptr));
            if (newest) {
                CHECK(found->position == newest->position);
                CHECK(found->offset == newest->offset);
            }
        }
    }
}

TEST_CASE("a seek in a segment reads the same records as reading on to there") {
    const auto records = sample_records(62, 200, 1 << 20, 5, 4);
    const Segment segment = write_segment(sample_header(1024, 5), records);
    auto reader = SegmentReader::open(memory_source(segment.bytes, "s"));
    REQUIRE(reader);
    const auto blocks = reader->blocks();
    for (const uint32_t block : {3u, 0u, uint32_t(blocks.size() - 1), 7u}) {
        REQUIRE(reader->seek(block));
        size_t at = blocks[block].first_position - 5;
        for (;;) {
            auto record = reader->next();
            REQUIRE(record);
            if (!*record) break;
            REQUIRE(OwnedRecord(**record) == records[at++]);
        }
        CHECK(at == records.size());
    }
    CHECK_FALSE(reader->seek(uint32_t(blocks.size())));
}

TEST_CASE("records out of a layer's order, or not fit for it, are refused by the writer") {
    const auto write = [](uint64_t position, uint64_t offset, uint64_t length = 512) {
        Record record;
        record.position = position;
        record.offset = offset;
        record.length = length;
        record.data = {};
        return record;
    };
    const Bytes data(8192);
    const auto accepted = [&](SegmentHeader header, std::vector<Record> records) {
        SegmentWriter writer(header);
        bool last = false;
        for (Record& record : records) {
            if (record.kind == RecordKind::write) record.data = ByteView(data).first(record.length);
            last = writer.append(record).has_value();
        }
        return last;
    };
    const SegmentHeader delta = layer_header(2048);
    CHECK(accepted(delta, {write(5, 0), write(6, 0), write(2, 4096)}));
    CHECK(accepted(delta, {write(5, 0), write(5, 512)}));
    CHECK_FALSE(accepted(delta, {write(6, 0), write(5, 0)}));
    CHECK_FALSE(accepted(delta, {write(5, 4096), write(6, 0)}));
    CHECK_FALSE(accepted(delta, {write(5, 0), write(5, 0)}));
    CHECK_FALSE(accepted(delta, {write(5, 3584, 1024)}));
    SegmentHeader late = delta;
    late.first_position = 10;
    CHECK_FALSE(accepted(late, {write(9, 0)}));
    Record span = write(3, 0, 65536);
    span.kind = RecordKind::zeroes;
    CHECK(accepted(delta, {span, write(1, 0)}));
    CHECK_FALSE(accepted(delta, {write(1, 0), span}));
    Record reread = write(3, 0);
    reread.kind = RecordKind::reread;
    CHECK(accepted(delta, {reread}));
    CHECK_FALSE(accepted(layer_header(2048, Contents::image_layer), {reread}));
    CHECK(accepted(layer_header(2048, Contents::image_layer), {span}));
    // Positions left out, as in a layer that was only thinned.
    SegmentHeader thinned = sample_header(2048);
    thinned.contents = Contents::delta_layer;
    CHECK(accepted(thinned, {write(3, 4096), write(7, 0)}));
    CHECK_FALSE(accepted(thinned, {write(7, 0), write(3, 4096)}));
}

TEST_CASE("orders, contents and granules that do not go together are refused") {
    const auto refused = [](auto change) {
        SegmentHeader header = layer_header(2048);
        change(header);
        CHECK_FALSE(validate(header));
    };
    CHECK(validate(layer_header(2048)));
    refused([](SegmentHeader& h) { h.granule_log2 = 8; });
    refused([](SegmentHeader& h) { h.granule_log2 = 21; });
    refused([](SegmentHeader& h) { h.contents = Contents::segment; });
    refused([](SegmentHeader& h) { h.order = RecordOrder::by_position; });
    refused([](SegmentHeader& h) { h.previous_segment = sample_id(1); });
    refused([](SegmentHeader& h) {
        h.contents = Contents::image_layer;
        h.order = RecordOrder::by_position;
        h.granule_log2 = 0;
    });
}

TEST_CASE("a file that is taken in pieces while it is written is the same file") {
    const auto records = sample_records(63, 300, 1 << 20, 1, 8);
    const Segment whole = write_segment(sample_header(1024), records);
    SegmentWriter writer(sample_header(1024));
    Bytes bytes;
    const auto keep = [&](const Bytes& piece) {
        bytes.insert(bytes.end(), piece.begin(), piece.end());
    };
    for (size_t i = 0; i < records.size(); ++i) {
        REQUIRE(writer.append(records[i].view()));
        if (i % 7 == 0) keep(writer.take());
    }
    auto rest = std::move(writer).finish();
    REQUIRE(rest);
    keep(rest->bytes);
    CHECK(rest->file_bytes == bytes.size());
    CHECK(bytes == whole.bytes);
}
