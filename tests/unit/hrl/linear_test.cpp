// SPDX-License-Identifier: Apache-2.0
// Reading takes time linear in the size of a file, also of one that was made to prevent it: four
// times the file, at most 4.5 times the work. Counted, not timed.
#include <cstdio>

#include "tests/temp_dir.h"
#include "tests/unit/hrl/sample_layers.h"
#include "tests/unit/hrl/v2/sample_logs.h"
#include "tests/unit/hrl/work_counter.h"
#include "user/hrl/convert.h"
#include "user/hrl/effects.h"
#include "user/hrl/sorted_journal.h"
#include "user/hrl/v2/chain.h"

using namespace herald;
using namespace herald::hrl;
using namespace herald::hrl::test;
namespace logs = herald::hrl::v2::test;

namespace {

// What sorts takes n log n: four times as many of some thousands may take 4.8 times the work.
constexpr double kSorting = 4.8;

// Lends nothing, so that every byte that is looked at is counted.
class CountingSource : public ByteSource {
  public:
    explicit CountingSource(ByteView bytes) : source_(memory_source(bytes, "counted.hrl")) {}
    uint64_t size() const override { return source_->size(); }
    std::string name() const override { return source_->name(); }
    Result<void> read(uint64_t offset, ByteSpan to) override {
        // Every byte is copied, hashed and (at the worst) unpacked.
        work_done += to.size() / 16;
        return source_->read(offset, to);
    }

  private:
    std::unique_ptr<ByteSource> source_;
};

std::unique_ptr<Journal> open(ByteView bytes) {
    auto journal = Journal::open(std::make_unique<CountingSource>(bytes), {{}, {.layers = true}});
    REQUIRE(journal);
    return std::move(*journal);
}

// All that comes; damage ends it, as for repair.
uint64_t drain(Journal& journal, const std::function<void(const Record&)>& visit = nullptr) {
    for (uint64_t count = 0;; ++count) {
        auto record = journal.next();
        if (!record || !*record) return count;
        if (visit) visit(**record);
    }
}

uint64_t work_of(const std::function<void()>& task) {
    const uint64_t before = work_done;
    task();
    return work_done - before;
}

// `prepare` makes what is read, of a size; `task` reads it.
template <class Prepare, class Task>
void is_linear(const char* what, size_t size, Prepare prepare, Task task, double most = 4.5) {
    const auto small = prepare(size);
    const auto large = prepare(size * 4);
    // Once for what is made only once.
    task(small);
    const uint64_t little = work_of([&] { task(small); });
    const uint64_t much = work_of([&] { task(large); });
    const double factor = double(much) / double(little);
    std::printf("%-58s %10lu %11lu  x %.2f\n", what, (unsigned long)little, (unsigned long)much,
                factor);
    INFO(what << ": " << little << " and " << much);
    CHECK(little > size);
    CHECK(factor <= most);
}

Record range_record(RecordKind kind, uint64_t position, uint64_t offset, uint64_t length) {
    Record record;
    record.kind = kind;
    record.position = position;
    record.offset = offset;
    record.length = length;
    record.time_ns = 1'700'000'000'000'000'000ull + position;
    return record;
}

Bytes segment_of(size_t count, uint32_t block_bytes,
                 const std::function<Record(uint64_t position)>& make) {
    SegmentHeader header = sample_header(block_bytes);
    header.disk_bytes = 1ull << 40;
    SegmentWriter writer(header);
    for (uint64_t position = 1; position <= count; ++position) {
        REQUIRE(writer.append(make(position)));
    }
    auto segment = std::move(writer).finish();
    REQUIRE(segment);
    return std::move(segment->bytes);
}

const Bytes kSectorOfNoise = [] {
    std::mt19937_64 random(3);
    return random_bytes(random, 512);
}();

// One record of 512 bytes in each block.
Bytes tiny_blocks(size_t count) {
    return segment_of(count, 512, [](uint64_t position) {
        Record record = range_record(RecordKind::write, position, position % 97 * 512, 512);
        record.data = kSectorOfNoise;
        return record;
    });
}

Bytes many_tags(size_t count) {
    static const Bytes kTag =
        encode_tag({sample_id(5), 1, TagKind::manual, Consistency::crash, std::string(255, 'n')});
    return segment_of(count, HERALD_HRL_BLOCK_BYTES_MAX, [](uint64_t position) {
        Record record = range_record(RecordKind::tag, position, 0, 0);
        record.data = kTag;
        return record;
    });
}

// Each range of zeroes lies within the one before and splits it, or covers all.
Bytes overlapping(size_t count) {
    return segment_of(count, HERALD_HRL_BLOCK_BYTES_MAX, [&](uint64_t position) {
        const uint64_t at = position % 64 == 0 ? 0 : position;
        const uint64_t length = position % 64 == 0 ? 2 * count : 2 * (count - position) + 1;
        Record record = range_record(RecordKind::zeroes, position, at * 512, length * 512);
        if (position % 2 == 1) {
            record.kind = RecordKind::write;
            record.length = 512;
            record.data = kSectorOfNoise;
        }
        return record;
    });
}

Bytes spans_and_pieces(size_t count) {
    SegmentHeader header = layer_header(4096);
    header.disk_bytes = 1ull << 40;
    std::vector<OwnedRecord> records;
    for (uint64_t i = 1; i <= count; ++i) {
        // The newest piece of each granule first, so that sorting has all to do.
        records.emplace_back(range_record(RecordKind::discard, count + i, i * 512, 8192));
        records.emplace_back(
            range_record(RecordKind::zeroes, count + 1 - i, i * 4096, 512 * (1 + i % 8)));
    }
    return write_layer(header, sorted_for(header, records)).bytes;
}

Bytes log_of(size_t count, const logs::LogShape& shape = {}) {
    std::vector<logs::Write> writes;
    for (size_t i = 0; i < count; ++i) {
        writes.push_back({i % 97 * 512, kSectorOfNoise, logs::kLeapDay});
    }
    return logs::build_log(writes, shape);
}

void read_all(const Bytes& bytes) { drain(*open(bytes)); }

Bytes changed(Bytes bytes, double where) {
    bytes[size_t(double(bytes.size()) * where)] ^= std::byte{1};
    return bytes;
}

Bytes cut(Bytes bytes, double where) {
    bytes.resize(size_t(double(bytes.size()) * where));
    return bytes;
}

}  // namespace

TEST_CASE("reading a segment takes linear time, whole, torn or damaged") {
    is_linear("segment: one record a block", 1000, tiny_blocks, read_all);
    is_linear("segment: tags", 4000, many_tags, read_all);
    is_linear("segment: overlapping ranges", 4000, overlapping, read_all);
    is_linear(
        "segment: one record a block, torn", 1000,
        [](size_t n) { return cut(tiny_blocks(n), 0.9); }, read_all);
    is_linear(
        "segment: one record a block, its last one damaged", 1000,
        [](size_t n) { return changed(tiny_blocks(n), 0.85); }, read_all);
    is_linear("segment: only its last block wanted", 4000, tiny_blocks, [](const Bytes& bytes) {
        auto journal = open(bytes);
        const uint32_t last = uint32_t(journal->segment()->blocks().size() - 1);
        journal->only([&](uint32_t block) { return block == last; });
        CHECK(drain(*journal) == 1);
    });
    is_linear("layer: spans and pieces", 2000, spans_and_pieces, read_all);
}

TEST_CASE("repairing a segment takes linear time") {
    const auto repair = [](const Bytes& bytes) {
        auto journal = open(bytes);
        Bytes made;
        made.reserve(bytes.size() + 4096);
        auto sink = memory_sink(made);
        SegmentStream stream(SegmentWriter(journal->segment()->header()), *sink);
        drain(*journal, [&](const Record& record) { REQUIRE(stream.append(record)); });
        REQUIRE(stream.finish());
    };
    is_linear(
        "repair: one record a block, torn", 1000, [](size_t n) { return cut(tiny_blocks(n), 0.9); },
        repair);
    is_linear(
        "repair: overlapping ranges, damaged", 20000,
        [](size_t n) { return changed(overlapping(n), 0.9); }, repair);
    is_linear("repair: tags", 2000, many_tags, repair);
}

TEST_CASE("reading a log takes linear time, whole, unclosed, torn or damaged") {
    const auto make = [](auto change) {
        return [change](size_t n) {
            logs::LogShape shape;
            change(shape);
            return log_of(n, shape);
        };
    };
    is_linear("log", 2000, make([](logs::LogShape&) {}), read_all);
    is_linear("log: one entry a block", 500,
              make([](logs::LogShape& shape) { shape.entries_per_block = 1; }), read_all);
    is_linear("log: unclosed", 2000, make([](logs::LogShape& shape) { shape.closed = false; }),
              read_all);
    is_linear("log: unclosed, one entry a block", 500, make([](logs::LogShape& shape) {
                  shape.closed = false;
                  shape.entries_per_block = 1;
              }),
              read_all);
    is_linear(
        "log: torn", 2000, [](size_t n) { return cut(log_of(n), 0.93); }, read_all);
    is_linear(
        "log: damaged in its middle", 2000, [](size_t n) { return changed(log_of(n), 0.5); },
        read_all);
    // The last block leads nowhere: every sector must be looked at.
    is_linear(
        "log: its chain broken at its end", 2000,
        [](size_t n) { return changed(log_of(n), 0.9999); }, read_all);
    is_linear(
        "log: blocks of 64 KiB, unclosed and torn", 500,
        [](size_t n) {
            logs::LogShape shape;
            shape.metadata_bytes = 64 << 10;
            shape.closed = false;
            return cut(log_of(n, shape), 0.9);
        },
        read_all);
}

TEST_CASE("putting a chain of logs in order takes little more than linear time") {
    is_linear(
        "chain: given backwards", 10000,
        [](size_t n) {
            std::vector<v2::Link> links;
            for (size_t i = n; i > 0; --i) {
                const auto id = [](size_t number) {
                    return number == 0 ? Uuid() : Uuid::from_name(Uuid(), std::to_string(number));
                };
                links.push_back({"log", id(i), id(i - 1), i});
            }
            return links;
        },
        [](const std::vector<v2::Link>& links) { CHECK(v2::follow_links(links).problems.empty()); },
        kSorting);
    is_linear(
        "chain: all the same log", 2000,
        [](size_t n) {
            return std::vector<v2::Link>(n, {"log", sample_id(1), sample_id(2), 1});
        },
        [](const std::vector<v2::Link>& links) {
            CHECK_FALSE(v2::follow_links(links).problems.empty());
        },
        kSorting);
    is_linear(
        "chain: all fork from one", 10000,
        [](size_t n) {
            std::vector<v2::Link> links;
            for (size_t i = 0; i < n; ++i) {
                links.push_back(
                    {"log", Uuid::from_name(Uuid(), std::to_string(i)), sample_id(2), 1});
            }
            return links;
        },
        [](const std::vector<v2::Link>& links) {
            CHECK_FALSE(v2::follow_links(links).problems.empty());
        },
        kSorting);
}

TEST_CASE("sorting a layer takes little more than linear time, comparing effects linear") {
    const auto sort_in = [](uint64_t memory) {
        return [memory](const Bytes& bytes) {
            herald::test::TempDir dir;
            drain(*sorted_by_position(open(bytes), dir.path(), memory));
        };
    };
    is_linear("layer by position: in memory", 4000, spans_and_pieces, sort_in(kSortBytes),
              kSorting);
    is_linear("layer by position: in runs", 4000, spans_and_pieces, sort_in(1 << 16), kSorting);
    const auto compare = [](const Bytes& bytes) {
        const auto opener = [&]() -> Result<std::unique_ptr<Journal>> { return open(bytes); };
        CHECK(compare_effects(opener, opener, [](const DifferentRange&) {}));
    };
    is_linear("effects: overlapping ranges", 4000, overlapping, compare);
    is_linear("effects: one record a block", 1000, tiny_blocks, compare);
}
