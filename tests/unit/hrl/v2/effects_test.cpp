// SPDX-License-Identifier: Apache-2.0
// Comparing what two journals make of a disk, against two disks in memory.
#include "user/hrl/effects.h"

#include "herald/limits.h"
#include "tests/unit/hrl/sample_segments.h"
#include "tests/unit/hrl/v2/sample_logs.h"

using namespace herald;
using namespace herald::hrl;
namespace logs = herald::hrl::v2::test;
namespace segments = herald::hrl::test;

namespace {

constexpr uint64_t kDisk = 1 << 20;

// A disk with, for each sector, whether a journal touched it.
struct Model {
    Bytes disk = Bytes(kDisk);
    std::vector<bool> touched = std::vector<bool>(kDisk / 512);

    void apply(const Record& record) {
        const bool zero = record.kind == RecordKind::zeroes || record.kind == RecordKind::discard ||
                          record.kind == RecordKind::secure_erase;
        if (record.kind != RecordKind::write && !zero) return;
        const auto at = disk.begin() + ptrdiff_t(record.offset);
        if (zero) std::fill_n(at, record.length, std::byte{0});
        if (!zero) std::copy(record.data.begin(), record.data.end(), at);
        for (uint64_t i = 0; i < record.length / 512; ++i) touched[record.offset / 512 + i] = true;
    }
};

std::vector<DifferentRange> expected(const Model& a, const Model& b) {
    std::vector<DifferentRange> ranges;
    for (uint64_t sector = 0; sector < kDisk / 512; ++sector) {
        const auto bytes = [&](const Model& model) {
            return ByteView(model.disk).subspan(sector * 512, 512);
        };
        Difference difference;
        if (a.touched[sector] != b.touched[sector]) {
            difference = a.touched[sector] ? Difference::only_first : Difference::only_second;
        } else if (!std::ranges::equal(bytes(a), bytes(b))) {
            difference = Difference::content;
        } else {
            continue;
        }
        if (!ranges.empty() && ranges.back().difference == difference &&
            ranges.back().offset + ranges.back().length == sector * 512) {
            ranges.back().length += 512;
        } else {
            ranges.push_back({sector * 512, 512, difference});
        }
    }
    return ranges;
}

JournalOpener opener(const Bytes& bytes) {
    return [&] { return Journal::open(memory_source(bytes, "journal.hrl")); };
}

struct Diff {
    std::vector<DifferentRange> ranges;
    ComparedEffects totals;
};

Diff diff(const Bytes& a, const Bytes& b, uint64_t cost_max = HERALD_HRL_EFFECTS_COST_MAX) {
    Diff found;
    auto totals = compare_effects(
        opener(a), opener(b), [&](const DifferentRange& range) { found.ranges.push_back(range); },
        cost_max);
    REQUIRE(totals);
    found.totals = *totals;
    return found;
}

}  // namespace

TEST_CASE("differences are those of the disks, in one window or in many") {
    const uint64_t seed = logs::seed_from_environment();
    INFO("HERALD_SEED=" << seed);
    std::mt19937_64 random(seed);
    for (size_t round = 0; round < 20 * logs::tier_scale(); ++round) {
        auto records = segments::sample_records(random(), 120, kDisk);
        const Bytes a = segments::write_segment(segments::sample_header(4096), records).bytes;
        Model first;
        for (const auto& record : records) first.apply(record.view());
        // The same stream with some records another.
        const auto others = segments::sample_records(random(), 120, kDisk);
        for (size_t i = 0; i < records.size(); ++i) {
            if (random() % 8 == 0) records[i] = others[i];
        }
        const Bytes b = segments::write_segment(segments::sample_header(4096), records).bytes;
        Model second;
        for (const auto& record : records) second.apply(record.view());

        const auto ranges = expected(first, second);
        const Diff whole = diff(a, b);
        CHECK(whole.ranges == ranges);
        CHECK(whole.totals.passes == 1);
        const Diff pieces = diff(a, b, 100 + random() % 300);
        CHECK(pieces.ranges == ranges);
        CHECK(pieces.totals.passes > 1);
        CHECK(diff(a, a, 500).ranges.empty());
    }
}

TEST_CASE("memory of a comparison stays under its bound") {
    const auto records = segments::sample_records(7, 400, kDisk);
    for (const uint64_t cost_max : {100u, 1000u, 10'000u}) {
        Effects effects(0, HERALD_DISK_BYTES_MAX, cost_max);
        for (const auto& record : records) {
            effects.apply(record.view());
            uint64_t cost = 0;
            for (const auto& [at, extent] : effects.extents()) {
                cost += 16 + extent.digests.size();
                REQUIRE(extent.end <= effects.end());
            }
            REQUIRE(cost <= cost_max);
        }
    }
}

TEST_CASE("a log and a segment of the same writes have the same effect") {
    const auto writes = logs::sample_writes(4, 50);
    const Bytes log = logs::build_log(writes);
    std::vector<segments::OwnedRecord> records;
    for (const auto& write : writes) {
        Record record;
        record.position = records.size() + 1;
        record.offset = write.offset;
        record.length = write.data.size();
        record.data = write.data;
        records.emplace_back(record);
    }
    const Bytes segment = segments::write_segment(segments::sample_header(4096), records).bytes;
    CHECK(diff(log, segment).ranges.empty());
    CHECK(diff(log, segment).totals.same_size());
}

TEST_CASE("sizes that differ, and what a shrunk disk lost, are differences") {
    const auto segment = [](std::initializer_list<uint64_t> sizes) {
        std::vector<segments::OwnedRecord> records;
        const Bytes data(512, std::byte{1});
        Record write;
        write.position = 1;
        write.offset = kDisk - 512;
        write.length = 512;
        write.data = data;
        records.emplace_back(write);
        for (const uint64_t size : sizes) {
            Record resize;
            resize.kind = RecordKind::resize;
            resize.position = records.size() + 1;
            resize.length = size;
            records.emplace_back(resize);
        }
        return segments::write_segment(segments::sample_header(4096), records).bytes;
    };
    const Diff shrunk = diff(segment({}), segment({kDisk / 2}));
    CHECK_FALSE(shrunk.totals.same_size());
    const Diff back = diff(segment({}), segment({kDisk - 512, kDisk}));
    CHECK(back.totals.same_size());
    CHECK(back.ranges == std::vector<DifferentRange>{{kDisk - 512, 512, Difference::content}});
}
