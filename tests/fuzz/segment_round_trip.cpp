// SPDX-License-Identifier: Apache-2.0
// Bytes as a recipe for records: whatever the writer accepts, the reader gives back, from the
// whole segment and, as a prefix, from any part of it.
#include <fuzzer/FuzzedDataProvider.h>

#include <algorithm>

#include "herald/limits.h"
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
size_t compare(ByteView bytes, const std::vector<Kept>& records) {
    auto reader = SegmentReader::open(memory_source(bytes, "round trip"));
    if (!reader) return 0;
    size_t count = 0;
    for (;;) {
        auto record = reader->next();
        HERALD_ASSERT(record);
        if (!*record) return count;
        HERALD_ASSERT(count < records.size() && same(records[count], **record));
        ++count;
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    FuzzedDataProvider recipe(data, size);
    SegmentHeader header;
    header.block_bytes = recipe.ConsumeIntegralInRange<uint32_t>(512, HERALD_HRL_BLOCK_BYTES_MAX);
    header.first_position = recipe.ConsumeIntegralInRange<uint64_t>(1, uint64_t{1} << 62);
    const uint32_t cut = recipe.ConsumeIntegral<uint32_t>();
    SegmentWriter writer(header);
    std::vector<Kept> records;
    while (recipe.remaining_bytes() > 0) {
        Kept kept = next_record(recipe, writer.next_position());
        kept.record.data = kept.data;
        const bool accepted = writer.append(kept.record).has_value();
        HERALD_ASSERT(accepted == validate(kept.record).has_value());
        if (accepted) records.push_back(std::move(kept));
    }
    auto segment = std::move(writer).finish();
    HERALD_ASSERT(segment.has_value() == !records.empty());
    if (!segment) return 0;
    HERALD_ASSERT(compare(segment->bytes, records) == records.size());
    HERALD_ASSERT(verify_segment(memory_source(segment->bytes, "round trip")));
    const ByteView part = ByteView(segment->bytes).first(cut % segment->bytes.size());
    HERALD_ASSERT(compare(part, records) <= records.size());
    HERALD_ASSERT(!verify_segment(memory_source(part, "round trip")));
    return 0;
}
