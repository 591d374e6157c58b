// SPDX-License-Identifier: Apache-2.0
#include "tests/e2e/tracker/comparison.h"

#include <algorithm>

#include "herald/limits.h"

namespace herald::test {
namespace {

constexpr size_t kBlocksTold = 4;
constexpr size_t kLinesTold = 12;

std::string describe(const DifferingBlock& block, bool dirty, const RequestLog* log) {
    std::string told = fmt::format(
        "block {}: {}; {} of {} sectors differ; the disk holds {}, the replica {}\n", block.number,
        dirty ? "dirty again" : "CLEAN", block.sectors, HERALD_BLOCK_BYTES / HERALD_SECTOR_BYTES,
        block.disk_is_zero ? "zeroes" : "data", block.replica_is_zero ? "zeroes" : "data");
    if (!log) return told;
    constexpr uint64_t kSectors = HERALD_BLOCK_BYTES / HERALD_SECTOR_BYTES;
    for (const std::string& line : log->of(block.number * kSectors, kSectors, kLinesTold)) {
        told += "    " + line + "\n";
    }
    return told;
}

}  // namespace

Comparison compare(Replica& replica, tracker::Tracker& tracker, const RequestLog* log) {
    Comparison comparison;
    const auto differing = replica.differing_blocks();
    comparison.differing = differing.size();
    if (differing.empty()) return comparison;
    // Nothing is read or acknowledged here: all that changed is in the map, open writes too.
    must(tracker.drain());
    must(tracker.end_pass());
    comparison.gap = tracker.gap();
    const auto runs = tracker.map().dirty_runs(SIZE_MAX);
    const auto is_dirty = [&](const DifferingBlock& block) {
        return std::any_of(runs.begin(), runs.end(), [&](const tracker::BlockRun& run) {
            return block.number >= run.first && block.number - run.first < run.count;
        });
    };
    size_t clean_told = 0;
    size_t dirty_told = 0;
    std::string dirty_text;
    for (const DifferingBlock& block : differing) {
        if (is_dirty(block)) {
            ++comparison.dirty;
            // One log is enough to see what came late.
            if (dirty_told++ < kBlocksTold) {
                dirty_text += describe(block, true, dirty_told == 1 ? log : nullptr);
            }
        } else if (clean_told++ < kBlocksTold) {
            comparison.told += describe(block, false, log);
        }
    }
    comparison.told += dirty_text;
    const auto counters = must(tracker.counters());
    comparison.told += fmt::format(
        "gap: {}\n{} submissions, {} completions, {} skipped runs, {} without a slot, {} reissued "
        "while open, {} beyond the end, {} of another attachment, {} long discards, {} open\n",
        comparison.gap.value_or("none"), counters.submissions, counters.completions,
        counters.missed_events, counters.table_full, counters.reissued_open, counters.beyond_end,
        counters.foreign, counters.long_discards, counters.open_extents);
    if (!comparison.gap) comparison.lost = comparison.differing - comparison.dirty;
    return comparison;
}

Settled settle(Replica& replica, tracker::Tracker& tracker, RequestLog* log) {
    constexpr uint64_t kComparisonsMax = 300;
    Settled settled;
    while (settled.comparisons < kComparisonsMax) {
        replica.finish(tracker);
        ++settled.comparisons;
        if (log) log->mark(fmt::format("comparison {} begins", settled.comparisons));
        settled.last = compare(replica, tracker, log);
        if (settled.last.differing == 0 || settled.last.lost > 0 || settled.last.gap) break;
        settled.late_blocks += settled.last.dirty;
        settled.late_told = settled.last.told;
    }
    return settled;
}

}  // namespace herald::test
