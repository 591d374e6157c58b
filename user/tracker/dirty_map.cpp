// SPDX-License-Identifier: Apache-2.0
#include "user/tracker/dirty_map.h"

#include <algorithm>
#include <atomic>
#include <bit>

#include "user/base/result.h"

namespace herald::tracker {
namespace {

// Every access is a sequentially consistent atomic. For the live map that pairs with the atomics
// of the BPF programs; for the other two it keeps the compiler from moving "clear here" before
// "set there", the order that a SIGKILL between the two relies on.
uint64_t load(const uint64_t& word) {
    // atomic_ref wants a mutable object; a load does not change it.
    return std::atomic_ref<uint64_t>(const_cast<uint64_t&>(word)).load();
}
void set(uint64_t& word, uint64_t bits) { std::atomic_ref<uint64_t>(word).fetch_or(bits); }
void clear(uint64_t& word, uint64_t bits) { std::atomic_ref<uint64_t>(word).fetch_and(~bits); }

// The bits of word w that [first, end) covers.
uint64_t mask_of(uint64_t w, uint64_t first, uint64_t end) {
    const uint64_t low = std::max(first, w * 64) - w * 64;
    const uint64_t high = std::min(end, w * 64 + 64) - w * 64;  // low < high <= 64
    return (~uint64_t{0} >> (64 - (high - low))) << low;
}

template <class Apply>
void for_words(BlockRun run, Apply apply) {
    if (run.count == 0) return;
    const uint64_t end = run.first + run.count;
    for (uint64_t w = run.first / 64; w <= (end - 1) / 64; ++w)
        apply(w, mask_of(w, run.first, end));
}

// The position of a block that was taken and not emitted yet: no acknowledgement reaches it.
constexpr uint64_t kBeingRead = UINT64_MAX;

uint64_t count_bits(std::span<uint64_t> words) {
    uint64_t bits = 0;
    for (const uint64_t& word : words) bits += uint64_t(std::popcount(load(word)));
    return bits;
}

}  // namespace

DirtyMap::DirtyMap(std::span<uint64_t> live, std::span<uint64_t> todo,
                   std::span<uint64_t> in_flight, uint64_t blocks)
    : live_(live), todo_(todo), in_flight_(in_flight), blocks_(blocks) {
    const uint64_t words = (blocks + 63) / 64;
    HERALD_ASSERT(live.size() == words && todo.size() == words && in_flight.size() == words);
}

void DirtyMap::recover() {
    for (size_t w = 0; w < in_flight_.size(); ++w) {
        const uint64_t bits = load(in_flight_[w]);
        if (bits == 0) continue;
        set(todo_[w], bits);
        clear(in_flight_[w], bits);
    }
    emitted_.clear();
    emissions_.clear();
    unacknowledged_ = 0;
}

uint64_t DirtyMap::absorb_live() {
    uint64_t to_do = 0;
    for (size_t w = 0; w < live_.size(); ++w) {
        const uint64_t bits = load(live_[w]);
        if (bits != 0) {
            set(todo_[w], bits);
            // Only what was copied: a bit that came meanwhile stays for the next pass. One that
            // was set again meanwhile is in todo, and is read after this line.
            clear(live_[w], bits);
        }
        to_do += uint64_t(std::popcount(load(todo_[w])));
    }
    return to_do;
}

void DirtyMap::mark(BlockRun run) {
    HERALD_ASSERT(run.first <= blocks_ && run.count <= blocks_ - run.first);
    for_words(run, [&](uint64_t w, uint64_t mask) { set(todo_[w], mask); });
}

void DirtyMap::mark_all() { mark({0, blocks_}); }

void DirtyMap::move_to_in_flight(BlockRun run) {
    // A record emitted earlier no longer covers these blocks: their newest content is only being
    // read. Without this, the acknowledgement of that record would clear their bits.
    for (uint64_t block = run.first; block < run.first + run.count; ++block) {
        emitted_[block] = kBeingRead;
    }
    for_words(run, [&](uint64_t w, uint64_t mask) {
        set(in_flight_[w], mask);
        clear(todo_[w], mask);
    });
}

uint64_t DirtyMap::being_read(uint64_t w) const {
    uint64_t bits = 0;
    for (auto next = emitted_.lower_bound(w * 64);
         next != emitted_.end() && next->first < w * 64 + 64; ++next) {
        if (next->second == kBeingRead) bits |= uint64_t{1} << (next->first % 64);
    }
    return bits;
}

std::vector<BlockRun> DirtyMap::take(uint64_t blocks_max, uint64_t run_blocks_max,
                                     uint64_t& cursor) {
    HERALD_ASSERT(run_blocks_max > 0);
    std::vector<BlockRun> runs;
    if (blocks_ == 0) return runs;
    const uint64_t start = cursor < blocks_ ? cursor : 0;
    uint64_t left = blocks_max;
    // Two sweeps: from the cursor to the end, then from the beginning to the cursor.
    const BlockRun sweeps[] = {{start, blocks_ - start}, {0, start}};
    for (const BlockRun& sweep : sweeps) {
        const uint64_t end = sweep.first + sweep.count;
        for (uint64_t w = sweep.first / 64; w * 64 < end && left > 0; ++w) {
            uint64_t bits = load(todo_[w]);
            if (bits != 0) bits &= mask_of(w, sweep.first, end) & ~being_read(w);
            while (bits != 0 && left > 0) {
                const uint64_t bit = uint64_t(std::countr_zero(bits));
                uint64_t count = uint64_t(std::countr_one(bits >> bit));
                count = std::min({count, left, run_blocks_max});
                const BlockRun run{w * 64 + bit, count};
                move_to_in_flight(run);
                bits &= ~mask_of(w, run.first, run.first + run.count);
                left -= count;
                cursor = run.first + run.count;
                if (!runs.empty() && runs.back().first + runs.back().count == run.first &&
                    runs.back().count + run.count <= run_blocks_max) {
                    runs.back().count += run.count;
                } else {
                    runs.push_back(run);
                }
            }
        }
    }
    if (cursor >= blocks_) cursor = 0;
    return runs;
}

void DirtyMap::emitted(BlockRun run, uint64_t position) {
    HERALD_ASSERT(position < kBeingRead);
    HERALD_ASSERT(emissions_.empty() || emissions_.back().position <= position);
    for (auto next = emitted_.lower_bound(run.first);
         next != emitted_.end() && next->first - run.first < run.count; ++next) {
        if (next->second == kBeingRead) next->second = position;
    }
    emissions_.push_back({position, run});
    unacknowledged_ += run.count;
}

void DirtyMap::give_back(BlockRun run) {
    mark(run);
    for (auto next = emitted_.lower_bound(run.first);
         next != emitted_.end() && next->first - run.first < run.count;) {
        if (next->second != kBeingRead) {
            ++next;
            continue;
        }
        clear(in_flight_[next->first / 64], uint64_t{1} << (next->first % 64));
        next = emitted_.erase(next);
    }
}

void DirtyMap::acknowledge(uint64_t position) {
    while (!emissions_.empty() && emissions_.front().position <= position) {
        const BlockRun run = emissions_.front().run;
        emissions_.pop_front();
        unacknowledged_ -= run.count;
        for (auto next = emitted_.lower_bound(run.first);
             next != emitted_.end() && next->first - run.first < run.count;) {
            // Newer than the acknowledgement: emitted again, or being read again.
            if (next->second > position) {
                ++next;
                continue;
            }
            clear(in_flight_[next->first / 64], uint64_t{1} << (next->first % 64));
            next = emitted_.erase(next);
        }
    }
}

uint64_t DirtyMap::live_blocks() const { return count_bits(live_); }
uint64_t DirtyMap::todo_blocks() const { return count_bits(todo_); }
uint64_t DirtyMap::in_flight_blocks() const { return count_bits(in_flight_); }

std::vector<BlockRun> DirtyMap::dirty_runs(size_t runs_max) const {
    std::vector<BlockRun> runs;
    for (size_t w = 0; w < live_.size(); ++w) {
        // In the direction in which bits travel, so that a moving one is seen at least once.
        uint64_t bits = load(live_[w]) | load(todo_[w]) | load(in_flight_[w]);
        while (bits != 0) {
            const uint64_t bit = uint64_t(std::countr_zero(bits));
            const uint64_t count = uint64_t(std::countr_one(bits >> bit));
            const BlockRun run{w * 64 + bit, count};
            bits &= ~mask_of(w, run.first, run.first + run.count);
            if (!runs.empty() && runs.back().first + runs.back().count == run.first) {
                runs.back().count += run.count;
            } else if (runs.size() < runs_max) {
                runs.push_back(run);
            } else {
                return runs;
            }
        }
    }
    return runs;
}

}  // namespace herald::tracker
