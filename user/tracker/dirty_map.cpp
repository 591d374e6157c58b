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
using Word = std::atomic_ref<uint64_t>;

uint64_t windows_of(uint64_t words) { return (words + kWindowWords - 1) / kWindowWords; }

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

}  // namespace

uint64_t& DirtyMap::Bits::word(uint64_t w) const {
    if (*open) (*open)(which, w / kWindowWords);
    return words[w];
}

uint64_t DirtyMap::Bits::load(uint64_t w) const { return Word(word(w)).load(); }

void DirtyMap::Bits::set(uint64_t w, uint64_t bits) {
    const uint64_t added = bits & ~Word(word(w)).fetch_or(bits);
    if (in_window.empty()) return;
    const auto count = uint32_t(std::popcount(added));
    in_window[w / kWindowWords] += count;
    total += count;
}

void DirtyMap::Bits::clear(uint64_t w, uint64_t bits) {
    const uint64_t removed = bits & Word(word(w)).fetch_and(~bits);
    if (in_window.empty()) return;
    const auto count = uint32_t(std::popcount(removed));
    in_window[w / kWindowWords] -= count;
    total -= count;
}

void DirtyMap::Bits::count() {
    in_window.assign(windows_of(words.size()), 0);
    total = 0;
    for (uint64_t w = 0; w < words.size(); ++w) {
        const auto count = uint32_t(std::popcount(load(w)));
        in_window[w / kWindowWords] += count;
        total += count;
    }
}

DirtyMap::DirtyMap(std::span<uint64_t> live, std::span<uint64_t> todo,
                   std::span<uint64_t> in_flight, uint64_t blocks, WindowOpener open)
    : open_(std::move(open)),
      live_{Bitmap::live, live, &open_, {}},
      todo_{Bitmap::todo, todo, &open_, {}},
      in_flight_{Bitmap::in_flight, in_flight, &open_, {}},
      blocks_(blocks) {
    const uint64_t words = (blocks + 63) / 64;
    HERALD_ASSERT(live.size() == words && todo.size() == words && in_flight.size() == words);
    todo_.count();
    in_flight_.count();
}

void DirtyMap::recover() {
    for (uint64_t w = 0; w < in_flight_.words.size(); ++w) {
        if (in_flight_.empty(w / kWindowWords)) {
            w |= kWindowWords - 1;
            continue;
        }
        const uint64_t bits = in_flight_.load(w);
        if (bits == 0) continue;
        todo_.set(w, bits);
        in_flight_.clear(w, bits);
    }
    emitted_.clear();
    emissions_.clear();
    unacknowledged_ = 0;
}

uint64_t DirtyMap::absorb_live() {
    for (uint64_t w = 0; w < live_.words.size(); ++w) {
        const uint64_t bits = live_.load(w);
        if (bits == 0) continue;
        todo_.set(w, bits);
        // Only what was copied: a bit that came meanwhile stays for the next pass. One that was
        // set again meanwhile is in todo, and is read after this line.
        live_.clear(w, bits);
    }
    return todo_.total;
}

void DirtyMap::mark(BlockRun run) {
    HERALD_ASSERT(run.first <= blocks_ && run.count <= blocks_ - run.first);
    for_words(run, [&](uint64_t w, uint64_t mask) { todo_.set(w, mask); });
}

void DirtyMap::mark_all() { mark({0, blocks_}); }

void DirtyMap::move_to_in_flight(BlockRun run) {
    // A record emitted earlier no longer covers these blocks: their newest content is only being
    // read. Without this, the acknowledgement of that record would clear their bits.
    for (uint64_t block = run.first; block < run.first + run.count; ++block) {
        emitted_[block] = kBeingRead;
    }
    for_words(run, [&](uint64_t w, uint64_t mask) {
        in_flight_.set(w, mask);
        todo_.clear(w, mask);
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
            if (todo_.empty(w / kWindowWords)) {
                w |= kWindowWords - 1;
                continue;
            }
            uint64_t bits = todo_.load(w);
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
        in_flight_.clear(next->first / 64, uint64_t{1} << (next->first % 64));
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
            in_flight_.clear(next->first / 64, uint64_t{1} << (next->first % 64));
            next = emitted_.erase(next);
        }
    }
}

uint64_t DirtyMap::live_blocks() const {
    uint64_t blocks = 0;
    for (uint64_t w = 0; w < live_.words.size(); ++w) {
        blocks += uint64_t(std::popcount(live_.load(w)));
    }
    return blocks;
}

std::vector<BlockRun> DirtyMap::dirty_runs(size_t runs_max) const {
    std::vector<BlockRun> runs;
    for (uint64_t w = 0; w < live_.words.size(); ++w) {
        uint64_t bits = live_.load(w);
        if (!todo_.empty(w / kWindowWords)) bits |= todo_.load(w);
        if (!in_flight_.empty(w / kWindowWords)) bits |= in_flight_.load(w);
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
