// SPDX-License-Identifier: Apache-2.0
#include "user/tracker/ebpf_state.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <type_traits>

namespace herald::tracker {

static_assert(std::is_trivially_copyable_v<StateDisk>);

std::optional<std::string> EbpfState::gap() const {
    if (std::atomic_ref<uint32_t>(disk_->gap_set).load() == 0) return std::nullopt;
    return std::string(disk_->gap, ::strnlen(disk_->gap, sizeof disk_->gap));
}

void EbpfState::set_gap(std::string_view why) {
    if (gap()) return;
    const size_t bytes = std::min(why.size(), sizeof disk_->gap - 1);
    std::memcpy(disk_->gap, why.data(), bytes);
    disk_->gap[bytes] = 0;
    // Last, so that a gap that is there has its text.
    std::atomic_ref<uint32_t>(disk_->gap_set).store(1);
}

void EbpfState::clear_gap() { std::atomic_ref<uint32_t>(disk_->gap_set).store(0); }

Continuity EbpfState::continuity() const {
    const uint64_t number = std::atomic_ref<uint64_t>(disk_->continuity_number).load();
    const ContinuityDisk& from = disk_->continuity[number & 1];
    Continuity continuity;
    continuity.disk.bytes = from.disk;
    continuity.session.bytes = from.session;
    continuity.next_session.bytes = from.next_session;
    continuity.acked_position = from.acked_position;
    continuity.synced = from.synced != 0;
    const uint64_t count = std::min<uint64_t>(from.sent_count, HERALD_SENT_SEGMENTS_MAX);
    for (uint64_t i = 0; i < count; ++i) {
        continuity.sent.push_back({from.sent[i].last_position, Uuid{from.sent[i].segment}});
    }
    return continuity;
}

void EbpfState::set_continuity(const Continuity& continuity) {
    std::atomic_ref<uint64_t> number(disk_->continuity_number);
    const uint64_t next = number.load() + 1;
    ContinuityDisk& to = disk_->continuity[next & 1];
    to.disk = continuity.disk.bytes;
    to.session = continuity.session.bytes;
    to.next_session = continuity.next_session.bytes;
    to.acked_position = continuity.acked_position;
    to.synced = continuity.synced ? 1 : 0;
    HERALD_ASSERT(continuity.sent.size() <= HERALD_SENT_SEGMENTS_MAX);
    to.sent_count = continuity.sent.size();
    for (size_t i = 0; i < continuity.sent.size(); ++i) {
        to.sent[i] = {continuity.sent[i].last_position, continuity.sent[i].segment.bytes};
    }
    number.store(next);
}

}  // namespace herald::tracker
