// SPDX-License-Identifier: Apache-2.0
#include "user/tracker/open_writes.h"

#include <atomic>

namespace herald::tracker {
namespace {

// The programs' fields are __u64, which is another type than uint64_t of the same shape.
std::atomic_ref<__u64> atomic(__u64& word) { return std::atomic_ref<__u64>(word); }

constexpr uint64_t kBlocksMax = HERALD_DISK_BYTES_MAX / HERALD_BLOCK_BYTES;
static_assert(kBlocksMax - 1 <= HERALD_EBPF_EXTENT_MASK);

BlockRun run_of(uint64_t word) {
    const uint64_t first = word & HERALD_EBPF_EXTENT_MASK;
    const uint64_t count = (word >> HERALD_EBPF_EXTENT_BITS) & HERALD_EBPF_EXTENT_MASK;
    return {first, count == HERALD_EBPF_EXTENT_MASK ? kBlocksMax - first : count};
}

uint64_t issue_of(uint64_t word) {
    return word >> HERALD_EBPF_EXTENT_ISSUE_SHIFT << HERALD_EBPF_EXTENT_ISSUE_SHIFT;
}

}  // namespace

std::vector<OpenWrites::Entry> OpenWrites::open() const {
    std::vector<Entry> entries;
    for (size_t i = 0; i < slots_.size(); ++i) {
        const uint64_t word = atomic(slots_[i].extent).load();
        const BlockRun run = run_of(word);
        if (run.count == 0) continue;
        const uint64_t part = atomic(slots_[i].part).load();
        // Issued again meanwhile: the part may be the later write's.
        const bool same = atomic(slots_[i].extent).load() == word;
        entries.push_back({i, word, run, same ? part : 0});
    }
    return entries;
}

uint64_t OpenWrites::count() const {
    uint64_t count = 0;
    for (auto& slot : slots_) count += run_of(atomic(slot.extent).load()).count != 0;
    return count;
}

void OpenWrites::forget(const Entry& entry) {
    // The number of the issue is part of the word: a request issued again meanwhile, even for the
    // same blocks, keeps its entry.
    __u64 expected = entry.word;
    atomic(slots_[entry.slot].extent).compare_exchange_strong(expected, issue_of(entry.word));
}

void OpenWrites::release_closed(const std::function<void(size_t)>& between) {
    const auto step = [&](size_t slot) {
        if (between) between(slot);
    };
    for (size_t i = 0; i < slots_.size(); ++i) {
        herald_open_write_abi& slot = slots_[i];
        const __u64 request = atomic(slot.request).load();
        if (request == 0 || request == HERALD_EBPF_REQUEST_RELEASED) continue;
        __u64 word = atomic(slot.extent).load();
        if (run_of(word).count != 0) continue;
        // A program that opens the slot from here on finds this word, or the name gone after it:
        // either way it counts its write as one without a slot.
        __u64 releasing = issue_of(word) | HERALD_EBPF_EXTENT_RELEASING;
        step(i);
        if (!atomic(slot.extent).compare_exchange_strong(word, releasing)) continue;
        step(i);
        atomic(slot.request).store(HERALD_EBPF_REQUEST_RELEASED);
        step(i);
        // Opened meanwhile: it stays open, and is marked by whoever comes next or when idle.
        atomic(slot.extent).compare_exchange_strong(releasing, issue_of(word));
    }
}

}  // namespace herald::tracker
