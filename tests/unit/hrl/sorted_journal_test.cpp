// SPDX-License-Identifier: Apache-2.0
#include "user/hrl/sorted_journal.h"

#include "tests/temp_dir.h"
#include "tests/unit/hrl/sample_layers.h"

using namespace herald;
using namespace herald::hrl;
using namespace herald::hrl::test;

namespace {

std::unique_ptr<Journal> open(const Bytes& bytes) {
    auto journal = Journal::open(memory_source(bytes, "layer.hrl"), {{}, {.layers = true}});
    REQUIRE(journal);
    return std::move(*journal);
}

bool happened_before(const OwnedRecord& a, const OwnedRecord& b) {
    return std::pair(a.record.position, a.record.offset) <
           std::pair(b.record.position, b.record.offset);
}

}  // namespace

TEST_CASE("a layer is sorted by position, in memory and in runs") {
    const uint64_t seed = seed_from_environment();
    INFO("HERALD_SEED=" << seed);
    herald::test::TempDir dir;
    for (size_t round = 0; round < 10 * tier_scale(); ++round) {
        const SegmentHeader header = layer_header(uint32_t(512u << round % 6));
        auto records = sorted_for(header, sample_records(seed + round, 300, 1 << 20, 1, 32));
        const Bytes layer = write_layer(header, records).bytes;
        std::ranges::stable_sort(records, happened_before);
        // All in memory; some in each run; one in each run.
        for (const uint64_t memory : {kSortBytes, uint64_t{64} << 10, uint64_t{1}}) {
            auto sorted = sorted_by_position(open(layer), dir.path(), memory);
            std::vector<OwnedRecord> found;
            for (;;) {
                auto record = sorted->next();
                REQUIRE(record);
                if (!*record) break;
                found.emplace_back(**record);
            }
            CHECK(found == records);
            CHECK(sorted->whole());
            CHECK(std::filesystem::is_empty(dir.path()));
        }
    }
}

TEST_CASE("of a damaged layer nothing comes sorted, of a torn one what is proven") {
    const SegmentHeader header = layer_header(1024);
    const auto records = sorted_for(header, sample_records(70, 200, 1 << 20, 1, 32));
    Bytes layer = write_layer(header, records).bytes;
    herald::test::TempDir dir;
    const Bytes torn(layer.begin(), layer.begin() + ptrdiff_t(layer.size() * 2 / 3));
    const auto proven = read_back(torn, {.layers = true}).records.size();
    REQUIRE(proven > 50);
    auto sorted = sorted_by_position(open(torn), dir.path(), 10'000);
    uint64_t last = 0;
    size_t count = 0;
    for (;; ++count) {
        auto record = sorted->next();
        REQUIRE(record);
        if (!*record) break;
        CHECK((*record)->position >= last);
        last = (*record)->position;
    }
    CHECK(count == proven);
    CHECK_FALSE(sorted->whole());

    layer[layer.size() / 2] ^= std::byte{1};
    auto damaged = sorted_by_position(open(layer), dir.path(), 10'000)->next();
    REQUIRE_FALSE(damaged);
    CHECK(damaged.error().kind == ErrorKind::corrupt);
}

TEST_CASE("a layer that needs a scratch file says where it cannot have one") {
    const SegmentHeader header = layer_header(1024);
    const auto records = sorted_for(header, sample_records(71, 50, 1 << 20));
    const Bytes layer = write_layer(header, records).bytes;
    auto found = sorted_by_position(open(layer), "/nowhere", 1)->next();
    REQUIRE_FALSE(found);
    CHECK(found.error().message.find("/nowhere") != std::string::npos);
    CHECK(sorted_by_position(open(layer), "/nowhere")->next());
}
