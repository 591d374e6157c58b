// SPDX-License-Identifier: Apache-2.0
// Recovery: the table is total, and whatever a crash leaves of a file, nothing torn is believed.
#include <fstream>
#include <map>
#include <set>

#include "tests/unit/hrl/sample_segments.h"

using namespace herald;
using namespace herald::hrl;
using namespace herald::hrl::test;

namespace {

constexpr HeaderState kHeaders[] = {HeaderState::unreadable, HeaderState::damaged,
                                    HeaderState::newer,      HeaderState::unsealed,
                                    HeaderState::locked,     HeaderState::good};
constexpr TailState kTails[] = {TailState::unreadable, TailState::whole, TailState::torn};
constexpr BlockState kBlocks[] = {BlockState::unreadable, BlockState::good, BlockState::damaged,
                                  BlockState::none};

bool matches(const RecoveryRow& row, HeaderState header, TailState tail, BlockState block) {
    return row.header == header && row.tail.value_or(tail) == tail &&
           row.block.value_or(block) == block;
}

bool is_prefix(const std::vector<OwnedRecord>& part, const std::vector<OwnedRecord>& all) {
    return part.size() <= all.size() && std::equal(part.begin(), part.end(), all.begin());
}

// What a crash leaves of a file whose sectors had not been flushed: each new, old, zero or garbage,
// and the file longer or shorter.
Bytes crashed(std::mt19937_64& random, const Bytes& written, const Bytes& before) {
    constexpr size_t kSector = 512;
    Bytes left = written;
    // From mostly kept to mostly lost: either end is where interesting states are.
    const uint64_t lost_of_16 = 1 + random() % 15;
    for (size_t at = 0; at < left.size(); at += kSector) {
        const size_t end = std::min(left.size(), at + kSector);
        if (random() % 16 >= lost_of_16) continue;
        switch (random() % 4) {
            case 0:
                std::fill(left.begin() + ptrdiff_t(at), left.begin() + ptrdiff_t(end),
                          std::byte{0});
                break;
            case 1:
                for (size_t i = at; i < end; ++i) left[i] = std::byte(random());
                break;
            case 2:  // another file was there before, at the same place or shifted
                for (size_t i = at; i < end; ++i) left[i] = before[i % before.size()];
                break;
            default: {  // part of the sector's own bytes
                const size_t kept = at + random() % (end - at);
                std::fill(left.begin() + ptrdiff_t(kept), left.begin() + ptrdiff_t(end),
                          std::byte(random()));
                break;
            }
        }
    }
    if (random() % 3 == 0) left.resize(random() % (left.size() + 1));
    if (random() % 8 == 0) left.resize(left.size() + random() % 1024);
    return left;
}

}  // namespace

TEST_CASE("the recovery table has exactly one row for every state") {
    std::set<size_t> used;
    for (const HeaderState header : kHeaders) {
        for (const TailState tail : kTails) {
            for (const BlockState block : kBlocks) {
                size_t rows = 0;
                for (const RecoveryRow& row : recovery_table()) {
                    if (!matches(row, header, tail, block)) continue;
                    ++rows;
                    used.insert(size_t(&row - recovery_table().data()));
                    CHECK(recovery_action(header, tail, block) == row.action);
                }
                CHECK(rows == 1);
            }
        }
    }
    CHECK(used.size() == recovery_table().size());
}

TEST_CASE("the recovery table hands out records only of good blocks behind a good header") {
    for (const RecoveryRow& row : recovery_table()) {
        if (row.action == RecoveryAction::hand_out) {
            CHECK(row.header == HeaderState::good);
            CHECK(row.block == BlockState::good);
        }
        if (row.action == RecoveryAction::end) CHECK(row.tail == TailState::whole);
    }
}

TEST_CASE("the specification shows the recovery table row by row") {
    std::ifstream text(HERALD_SOURCE_DIR "/docs/formats/hrl.md");
    const std::map<std::string, HeaderState> headers = {
        {"unreadable", HeaderState::unreadable}, {"damaged", HeaderState::damaged},
        {"newer", HeaderState::newer},           {"unsealed", HeaderState::unsealed},
        {"locked", HeaderState::locked},         {"good", HeaderState::good}};
    const std::map<std::string, std::optional<TailState>> tails = {
        {"any", std::nullopt},
        {"unreadable", TailState::unreadable},
        {"whole", TailState::whole},
        {"torn", TailState::torn}};
    const std::map<std::string, std::optional<BlockState>> blocks = {
        {"any", std::nullopt},
        {"unreadable", BlockState::unreadable},
        {"good", BlockState::good},
        {"damaged", BlockState::damaged},
        {"none", BlockState::none}};
    size_t row = 0;
    bool is_here = false;
    for (std::string line; std::getline(text, line);) {
        if (line.starts_with("#")) is_here = line == "## Recovery rule";
        if (!is_here || !line.starts_with("| ")) continue;
        std::istringstream words(line);
        std::string bar, header, tail, block;
        words >> bar >> header >> bar >> tail >> bar >> block;
        if (!headers.contains(header) || header == "header") continue;
        INFO(line);
        REQUIRE(row < recovery_table().size());
        const RecoveryRow& expected = recovery_table()[row++];
        CHECK(headers.at(header) == expected.header);
        CHECK(tails.at(tail) == expected.tail);
        CHECK(blocks.at(block) == expected.block);
    }
    CHECK(row == recovery_table().size());
}

TEST_CASE("of whatever a crash leaves, only a prefix is read and only the whole verified") {
    const uint64_t seed = seed_from_environment();
    INFO("HERALD_SEED=" << seed);
    std::mt19937_64 random(seed);
    const seal::MachineKey key = seal::MachineKey::create(sample_id(0x11));
    seal::Keyring ring;
    ring.add(key.copy());
    const ReadOptions options{.keys = &ring};
    // 5000 states in ./check, 100 000 in nightly runs.
    const size_t files = 50 * tier_scale();
    size_t torn = 0, whole = 0, recovered_records = 0;
    for (size_t file = 0; file < files; ++file) {
        const bool sealed = file % 2 == 1;
        const auto count = 8 + random() % 40;
        const auto records = sample_records(random(), count, 1 << 20, 1, 4);
        const auto older = sample_records(random(), count, 1 << 20, 1, 4);
        const auto write = [&](const std::vector<OwnedRecord>& of, uint8_t id) {
            SegmentHeader header = sample_header(1024);
            header.segment = sample_id(id);
            return sealed ? write_sealed(header, of, key) : write_segment(header, of);
        };
        const Bytes written = write(records, 0x33).bytes;
        const Bytes before = write(older, 0x44).bytes;
        for (size_t state = 0; state < 100; ++state) {
            const Bytes left = crashed(random, written, before);
            const ReadBack back = read_back(left, options);
            if (left == written) {
                ++whole;
                REQUIRE(back.records == records);
                continue;
            }
            ++torn;
            // Another segment that was there before is whole in its own right, and says its name.
            auto verified = verify_segment(memory_source(left, "s"), nullptr, options);
            const bool is_older = verified && verified->header.segment == sample_id(0x44);
            const auto& expected = is_older ? older : records;
            if ((verified && !is_older) ||
                (!is_prefix(back.records, expected) && !is_prefix(back.records, older))) {
                FAIL("state " << state << " of file " << file << ": " << back.records.size()
                              << " records, error '" << back.error << "'");
            }
            recovered_records += back.records.size();
            // The recovery of the recovery: reading again gives the same; what was recovered is
            // written as a file of its own, and what a crash leaves of that is a prefix of it.
            if (back.records.empty() || state % 4 != 0) continue;
            REQUIRE(read_back(left, options).records == back.records);
            const Bytes repaired = write(back.records, 0x55).bytes;
            REQUIRE(read_back(repaired, options).records == back.records);
            const ReadBack again = read_back(crashed(random, repaired, left), options);
            if (!is_prefix(again.records, back.records) && !is_prefix(again.records, older) &&
                !is_prefix(again.records, records)) {
                FAIL("recovery of state " << state << " of file " << file);
            }
        }
    }
    CHECK(torn > files * 90);
    CHECK(recovered_records > 0);
    if (tier_scale() > 1)
        WARN(torn << " torn states, " << whole << " whole, " << recovered_records
                  << " records recovered");
}
