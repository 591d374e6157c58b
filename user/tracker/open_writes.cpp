// SPDX-License-Identifier: Apache-2.0
#include "user/tracker/open_writes.h"

#include <atomic>

namespace herald::tracker {
namespace {

// The programs' fields are __u64, which is another type than uint64_t of the same shape.
std::atomic_ref<__u64> atomic(__u64& word) { return std::atomic_ref<__u64>(word); }

BlockRun run_of(uint64_t word) {
    return {word & HERALD_EBPF_EXTENT_MASK,
            (word >> HERALD_EBPF_EXTENT_BITS) & HERALD_EBPF_EXTENT_MASK};
}

}  // namespace

std::vector<OpenWrites::Entry> OpenWrites::open() const {
    std::vector<Entry> entries;
    for (size_t i = 0; i < slots_.size(); ++i) {
        const uint64_t word = atomic(slots_[i].extent).load();
        const BlockRun run = run_of(word);
        if (run.count != 0) entries.push_back({i, word, run});
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
    const __u64 closed = entry.word >> HERALD_EBPF_EXTENT_ISSUE_SHIFT
                                           << HERALD_EBPF_EXTENT_ISSUE_SHIFT;
    atomic(slots_[entry.slot].extent).compare_exchange_strong(expected, closed);
}

void OpenWrites::release_closed() {
    for (auto& slot : slots_) {
        if (run_of(atomic(slot.extent).load()).count == 0) atomic(slot.request).store(0);
    }
}

}  // namespace herald::tracker
