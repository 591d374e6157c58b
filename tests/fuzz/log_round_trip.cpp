// SPDX-License-Identifier: Apache-2.0
// Bytes as a recipe for writes: whatever the log writer accepts, the reader gives back, from the
// whole log and, as a prefix, from any part of it.
#include <fuzzer/FuzzedDataProvider.h>

#include <algorithm>

#include "user/hrl/v2/log_reader.h"
#include "user/hrl/v2/log_writer.h"

namespace {

using namespace herald;
using namespace herald::hrl;
using namespace herald::hrl::v2;

struct Kept {
    uint64_t offset;
    Bytes data;
    uint32_t time;
};

// Compares what a reader hands out with the writes; returns how many there were.
size_t compare(ByteView bytes, const std::vector<Kept>& writes, bool& whole) {
    auto reader = LogReader::open(memory_source(bytes, "round trip"));
    whole = reader && reader->whole();
    if (!reader) return 0;
    for (size_t count = 0;; ++count) {
        auto record = reader->next();
        HERALD_ASSERT(record);
        if (!*record) return count;
        HERALD_ASSERT(count < writes.size());
        const Kept& kept = writes[count];
        HERALD_ASSERT((*record)->offset == kept.offset &&
                      (*record)->time_ns == time_ns_of(kept.time) &&
                      std::ranges::equal((*record)->data, kept.data));
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    FuzzedDataProvider recipe(data, size);
    LogHeader header;
    header.metadata_bytes = 512 * recipe.ConsumeIntegralInRange<uint32_t>(1, 8);
    const auto order = recipe.ConsumeBool() ? EntryOrder::oldest_first : EntryOrder::newest_first;
    const uint32_t cut = recipe.ConsumeIntegral<uint32_t>();
    Bytes bytes;
    auto sink = memory_sink(bytes);
    auto writer = LogWriter::open(*sink, header, order);
    HERALD_ASSERT(writer);
    std::vector<Kept> writes;
    while (recipe.remaining_bytes() > 0) {
        Kept kept;
        kept.offset = uint64_t{recipe.ConsumeIntegral<uint16_t>()} * 512;
        kept.time = recipe.ConsumeIntegral<uint32_t>();
        kept.data.resize(recipe.ConsumeIntegralInRange<size_t>(1, 8) * 512);
        const auto seed = recipe.ConsumeBytes<uint8_t>(recipe.ConsumeIntegral<uint8_t>());
        for (size_t i = 0; !seed.empty() && i < kept.data.size(); ++i) {
            kept.data[i] = std::byte(seed[i % seed.size()]);
        }
        HERALD_ASSERT(writer->append(kept.offset, kept.data, kept.time));
        writes.push_back(std::move(kept));
    }
    HERALD_ASSERT(writer->finish());
    bool whole = false;
    HERALD_ASSERT(compare(bytes, writes, whole) == writes.size() && whole);
    HERALD_ASSERT(compare(ByteView(bytes).first(cut % bytes.size()), writes, whole) <=
                  writes.size());
    HERALD_ASSERT(!whole);
    return 0;
}
