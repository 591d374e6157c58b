// SPDX-License-Identifier: Apache-2.0
#include "user/process_server/intake.h"

#include "herald/limits.h"
#include "user/base/result.h"

namespace herald::process_server {

DiskIntake::DiskIntake(uint64_t epoch, uint64_t head, const Uuid& head_segment)
    : epoch_(epoch), head_(head), head_segment_(head_segment) {}

void DiskIntake::new_epoch(uint64_t epoch) {
    HERALD_ASSERT(epoch >= epoch_);
    if (epoch == epoch_) return;
    epoch_ = epoch;
    slots_.clear();
}

OfferVerdict DiskIntake::offer(const OfferedSegment& offered,
                               const std::optional<OfferedSegment>& stored) {
    // Epoch 0: no session was ever granted.
    if (offered.epoch != epoch_ || epoch_ == 0) return OfferVerdict::fenced;
    if (offered.first == 0 || offered.last < offered.first) return OfferVerdict::diverged;
    if (offered.first <= head_) {
        return stored && *stored == offered ? OfferVerdict::duplicate : OfferVerdict::diverged;
    }
    const auto same = slots_.find(offered.first);
    if (same != slots_.end() && same->second.offered == offered) {
        return same->second.arrived ? OfferVerdict::duplicate : OfferVerdict::in_progress;
    }
    const bool at_head = offered.first == head_ + 1;
    if (at_head && offered.previous != head_segment_) return OfferVerdict::diverged;
    // Neighbours must not overlap: one epoch has one writer, which never sends two versions.
    const auto after = slots_.lower_bound(offered.first);
    if (after != slots_.end() && after->first <= offered.last) return OfferVerdict::diverged;
    if (after != slots_.begin() && std::prev(after)->second.offered.last >= offered.first) {
        return OfferVerdict::diverged;
    }
    if (at_head) {
        slots_[offered.first] = {offered, false};
        return OfferVerdict::commit;
    }
    if (slots_.size() >= HERALD_WINDOW_SEGMENTS) return OfferVerdict::ahead;
    slots_[offered.first] = {offered, false};
    return OfferVerdict::hold;
}

bool DiskIntake::holds(const OfferedSegment& offered) const {
    const auto slot = slots_.find(offered.first);
    return slot != slots_.end() && slot->second.offered == offered;
}

bool DiskIntake::arrived(const OfferedSegment& offered) {
    if (!holds(offered)) return false;
    slots_[offered.first].arrived = true;
    return true;
}

void DiskIntake::abandon(const OfferedSegment& offered) {
    if (holds(offered)) slots_.erase(offered.first);
}

std::optional<OfferedSegment> DiskIntake::next() const {
    const auto slot = slots_.find(head_ + 1);
    if (slot == slots_.end() || !slot->second.arrived ||
        slot->second.offered.previous != head_segment_) {
        return std::nullopt;
    }
    return slot->second.offered;
}

std::optional<OfferedSegment> DiskIntake::take_diverged() {
    const auto slot = slots_.begin();
    if (slot == slots_.end() || !slot->second.arrived) return std::nullopt;
    const OfferedSegment offered = slot->second.offered;
    const bool continues = offered.first > head_ + 1 ||
                           (offered.first == head_ + 1 && offered.previous == head_segment_);
    if (continues) return std::nullopt;
    slots_.erase(slot);
    return offered;
}

void DiskIntake::committed(const OfferedSegment& offered) {
    HERALD_ASSERT(offered.epoch == epoch_ && offered.first == head_ + 1);
    slots_.erase(offered.first);
    head_ = offered.last;
    head_segment_ = offered.segment;
}

const char* to_string(OfferVerdict verdict) {
    switch (verdict) {
        case OfferVerdict::commit:
            return "commit";
        case OfferVerdict::hold:
            return "hold";
        case OfferVerdict::duplicate:
            return "duplicate";
        case OfferVerdict::in_progress:
            return "in_progress";
        case OfferVerdict::ahead:
            return "ahead";
        case OfferVerdict::fenced:
            return "fenced";
        case OfferVerdict::diverged:
            return "diverged";
    }
    return "unknown";
}

}  // namespace herald::process_server
