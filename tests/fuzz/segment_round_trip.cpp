// SPDX-License-Identifier: Apache-2.0
// Bytes as a recipe for records of a segment or a layer, plain or sealed: whatever the writer
// accepts, the reader gives back, from the whole file and, as a prefix, from any part of it;
// without the key the same records without the data of writes.
#include <fuzzer/FuzzedDataProvider.h>

#include <algorithm>

#include "herald/limits.h"
#include "tests/fuzz/read_segment.h"
#include "user/hrl/segment_reader.h"

namespace {

using namespace herald;
using namespace herald::hrl;

struct Kept {
    Record record;
    Bytes data;
};

bool same(const Kept& kept, const Record& record) {
    return kept.record.kind == record.kind && kept.record.position == record.position &&
           kept.record.offset == record.offset && kept.record.length == record.length &&
           kept.record.time_ns == record.time_ns && std::ranges::equal(kept.data, record.data);
}

Kept next_record(FuzzedDataProvider& recipe, uint64_t position) {
    Kept kept;
    Record& record = kept.record;
    record.kind = RecordKind(recipe.ConsumeIntegralInRange<unsigned>(0, 12));
    record.position = position;
    record.time_ns = recipe.ConsumeIntegral<uint64_t>();
    record.offset = recipe.ConsumeIntegral<uint16_t>() * uint64_t{512};
    if (recipe.ConsumeIntegral<uint8_t>() == 0) record.offset += 1;
    switch (record.kind) {
        case RecordKind::tag:
            kept.data = encode_tag({{},
                                    record.time_ns,
                                    TagKind(recipe.ConsumeIntegralInRange<unsigned>(0, 5)),
                                    Consistency::crash,
                                    recipe.ConsumeRandomLengthString(300)});
            record.offset = 0;
            break;
        case RecordKind::activation:
            kept.data = encode_activation({{}, StreamMode::unordered, "ebpf", ""});
            record.offset = 0;
            break;
        default: {
            record.length = recipe.ConsumeIntegralInRange<uint64_t>(0, 40) * 512;
            if (record.kind != RecordKind::write) break;
            // A few bytes of the input, repeated: data that compresses more or less.
            const auto seed = recipe.ConsumeBytes<uint8_t>(recipe.ConsumeIntegral<uint8_t>());
            kept.data.resize(record.length);
            for (size_t i = 0; !seed.empty() && i < kept.data.size(); ++i) {
                kept.data[i] = std::byte(seed[i % seed.size()] + (i * i >> 9));
            }
            break;
        }
    }
    return kept;
}

// Compares what a reader hands out with the records; returns how many there were.
size_t compare(ByteView bytes, const std::vector<Kept>& records, const ReadOptions& options) {
    auto reader = SegmentReader::open(memory_source(bytes, "round trip"), options);
    if (!reader) return 0;
    size_t count = 0;
    for (;;) {
        auto record = reader->next();
        HERALD_ASSERT(record);
        if (!*record) return count;
        HERALD_ASSERT(count < records.size());
        Kept expected = records[count];
        if ((*record)->data_is_sealed) {
            HERALD_ASSERT(!reader->opens_data() && (*record)->kind == RecordKind::write);
            expected.data.clear();
        }
        HERALD_ASSERT(same(expected, **record));
        ++count;
    }
}

// What kind of file, and how its records are ordered.
SegmentHeader next_header(FuzzedDataProvider& recipe) {
    SegmentHeader header;
    header.machine = fuzz::fuzz_key().machine;
    header.block_bytes = recipe.ConsumeIntegralInRange<uint32_t>(512, HERALD_HRL_BLOCK_BYTES_MAX);
    header.first_position = recipe.ConsumeIntegralInRange<uint64_t>(1, HERALD_POSITION_MAX);
    const auto contents = recipe.ConsumeIntegralInRange<unsigned>(0, 3);
    header.contents = contents == 3 ? Contents::delta_layer : Contents(contents);
    if (contents == 1 || header.contents == Contents::image_layer) {
        header.order = RecordOrder::by_block_then_position;
        header.granule_log2 = recipe.ConsumeIntegralInRange<uint8_t>(9, 20);
    }
    return header;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    FuzzedDataProvider recipe(data, size);
    const SegmentHeader header = next_header(recipe);
    const auto sealed_by = SealedBy(recipe.ConsumeIntegralInRange<uint8_t>(0, 2));
    const uint32_t cut = recipe.ConsumeIntegral<uint32_t>();
    const bool segment_only = header.contents == Contents::segment;
    SegmentWriter writer = sealed_by == SealedBy::nobody
                               ? SegmentWriter(header)
                               : SegmentWriter(header, {sealed_by, &fuzz::fuzz_key()});
    OrderCheck order(header);
    std::vector<Kept> records;
    while (recipe.remaining_bytes() > 0) {
        // In a layer also earlier and later ones than the next: the writer must tell.
        const uint64_t position = segment_only
                                      ? writer.next_position()
                                      : header.first_position + recipe.ConsumeIntegral<uint8_t>();
        Kept kept = next_record(recipe, position);
        kept.record.data = kept.data;
        const bool fits = validate(kept.record) && order.take(kept.record);
        HERALD_ASSERT(writer.append(kept.record).has_value() == fits);
        if (fits) records.push_back(std::move(kept));
    }
    auto segment = std::move(writer).finish();
    HERALD_ASSERT(segment.has_value() == !records.empty());
    if (!segment) return 0;
    seal::Keyring keys;
    keys.add(fuzz::fuzz_key().copy());
    const ReadOptions with_key{.keys = &keys, .layers = true};
    const ReadOptions without_key{.without_key = true, .layers = true};
    const ByteView part = ByteView(segment->bytes).first(cut % segment->bytes.size());
    for (const ReadOptions& options : {with_key, without_key}) {
        HERALD_ASSERT(compare(segment->bytes, records, options) == records.size());
        HERALD_ASSERT(verify_segment(memory_source(segment->bytes, "whole"), nullptr, options));
        HERALD_ASSERT(compare(part, records, options) <= records.size());
        HERALD_ASSERT(!verify_segment(memory_source(part, "part"), nullptr, options));
    }
    return 0;
}
