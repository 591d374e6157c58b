// SPDX-License-Identifier: Apache-2.0
#include "user/tracker/cbt_reader.h"

#include <algorithm>

#include "herald/limits.h"

namespace herald::tracker {

using Kind = OrderedChange::Kind;

CbtReader::CbtReader(const CbtAreas& areas, const herald_cbt_own_abi& own, std::string name,
                     std::function<void(uint64_t, uint64_t)> to_read)
    : areas_(areas),
      name_(std::move(name)),
      to_read_(std::move(to_read)),
      drained_(own.tail),
      covered_(own.tail) {}

template <class... Args>
tl::unexpected<Error> CbtReader::rotten(fmt::format_string<Args...> format, Args&&... args) const {
    return fail(ErrorKind::corrupt, "{}: its ring cannot be true: {}", name_,
                fmt::format(format, std::forward<Args>(args)...));
}

Result<OrderedChange> CbtReader::mode_change(uint32_t mode, uint32_t cause) {
    OrderedChange change;
    switch (mode) {
        case HERALD_CBT_MODE_ORDERED:
            change.kind = Kind::ordered;
            break;
        case HERALD_CBT_MODE_EXTENTS:
            change.kind = Kind::extents;
            break;
        case HERALD_CBT_MODE_MAP:
            change.kind = Kind::map;
            break;
        default:
            return rotten("mode {}", mode);
    }
    change.time_ns = time_ns_;
    change.cause = cbt_cause_name(cause);
    mode_ = mode;
    return change;
}

Result<std::optional<OrderedChange>> CbtReader::next() {
    const uint64_t head = this->head();
    if (head < drained_ || head - drained_ > areas_.slots.size()) {
        return rotten("it ends at slot {}, {} were read of {}", head, drained_,
                      areas_.slots.size());
    }
    if (head == drained_) {
        // The mode sinks without a slot, as there is none: its place is behind the last one before.
        const uint32_t now = mode();
        if (now == mode_ || this->head() != drained_) return std::optional<OrderedChange>();
        auto change =
            mode_change(now, __atomic_load_n(&areas_.header->mode_cause, __ATOMIC_RELAXED));
        if (!change) return pass(change);
        return std::optional(std::move(*change));
    }
    const herald_cbt_slot_abi& shared = areas_.slots[drained_ & (areas_.slots.size() - 1)];
    const uint32_t state = __atomic_load_n(&shared.state, __ATOMIC_ACQUIRE);
    if (state == HERALD_CBT_RESERVED) return std::optional<OrderedChange>();
    // A copy: what was checked is what is used.
    herald_cbt_slot_abi slot = shared;
    slot.state = state;
    auto change = look_at(slot);
    if (!change) return pass(change);
    return std::optional(std::move(*change));
}

// The range is read instead. While the mode is not ordered the stream says so already, and a
// record for each of them would say nothing more.
OrderedChange CbtReader::unread(const herald_cbt_slot_abi& slot, OrderedChange change) {
    if (slot.state != HERALD_CBT_UNRESOLVED) {
        if (!bare_) bare_ = drained_;
        to_read_(change.offset, change.length);
    }
    change.kind = mode_ == HERALD_CBT_MODE_ORDERED ? Kind::reread : Kind::nothing;
    return change;
}

Result<OrderedChange> CbtReader::look_at(const herald_cbt_slot_abi& slot) {
    if (slot.state < HERALD_CBT_RESERVED || slot.state > HERALD_CBT_UNRESOLVED) {
        return rotten("slot {} is in state {}", drained_, slot.state);
    }
    if (slot.kind != HERALD_CBT_TAG && slot.kind != HERALD_CBT_ACTIVATION) {
        uint64_t number = 0;
        std::memcpy(&number, slot.id, sizeof number);
        if (number != drained_) return rotten("slot {} says that it is slot {}", drained_, number);
    }
    OrderedChange change;
    change.time_ns = slot.time_ns;
    const auto passed = [&](OrderedChange done) {
        time_ns_ = std::max<uint64_t>(time_ns_, slot.time_ns);
        ++drained_;
        return done;
    };
    switch (slot.kind) {
        case HERALD_CBT_TAG:
            change.kind = Kind::tag;
            change.downgraded = (slot.flags & HERALD_CBT_SLOT_DOWNGRADED) != 0;
            std::memcpy(change.id.bytes.data(), slot.id, sizeof slot.id);
            if (change.downgraded && mode_ == HERALD_CBT_MODE_ORDERED) {
                return mode_change(HERALD_CBT_MODE_EXTENTS, HERALD_CBT_CAUSE_NOT_ORDERED);
            }
            return passed(change);
        case HERALD_CBT_ACTIVATION:
            return passed(change);
        case HERALD_CBT_MODE: {
            if (slot.argument > HERALD_CBT_MODE_ORDERED) {
                return rotten("slot {} names mode {}", drained_, slot.argument);
            }
            time_ns_ = std::max<uint64_t>(time_ns_, slot.time_ns);
            auto changed = mode_change(uint32_t(slot.argument), HERALD_CBT_CAUSE_CLIMBED);
            if (!changed) return pass(changed);
            return passed(std::move(*changed));
        }
        case HERALD_CBT_RESIZE:
            if (slot.sector == 0 || slot.sector > HERALD_CBT_DISK_SECTORS_MAX) {
                return rotten("slot {} makes the disk {} sectors large", drained_, slot.sector);
            }
            change.kind = Kind::resize;
            change.length = slot.sector * HERALD_SECTOR_BYTES;
            return passed(change);
        case HERALD_CBT_WRITE:
            change.kind = Kind::write;
            break;
        case HERALD_CBT_WRITE_ZEROES:
            change.kind = Kind::zeroes;
            break;
        case HERALD_CBT_DISCARD:
            change.kind = Kind::discard;
            break;
        case HERALD_CBT_SECURE_ERASE:
            change.kind = Kind::secure_erase;
            break;
        case HERALD_CBT_REREAD:
            change.kind = Kind::reread;
            break;
        default:
            return rotten("slot {} is of kind {}", drained_, slot.kind);
    }
    if (slot.sectors == 0 || slot.sector >= HERALD_CBT_DISK_SECTORS_MAX ||
        slot.sectors > HERALD_CBT_DISK_SECTORS_MAX - slot.sector) {
        return rotten("slot {} covers {} sectors from {} on", drained_, slot.sectors, slot.sector);
    }
    change.offset = slot.sector * HERALD_SECTOR_BYTES;
    change.length = uint64_t(slot.sectors) * HERALD_SECTOR_BYTES;
    const bool refused = (slot.flags & HERALD_CBT_SLOT_NO_EFFECT) != 0;
    if (refused && slot.state == HERALD_CBT_COMMITTED && change.kind == Kind::discard) {
        change.kind = Kind::nothing;
        return passed(change);
    }
    const bool without_data = change.kind == Kind::write && slot.payload_bytes == 0;
    if (without_data && slot.state == HERALD_CBT_COMMITTED && mode_ == HERALD_CBT_MODE_ORDERED) {
        return mode_change(HERALD_CBT_MODE_EXTENTS, HERALD_CBT_CAUSE_PAYLOAD_FULL);
    }
    if (without_data || refused || slot.state != HERALD_CBT_COMMITTED ||
        change.kind == Kind::reread) {
        return passed(unread(slot, std::move(change)));
    }
    if (change.kind != Kind::write) return passed(change);
    const uint64_t size = areas_.payload.size();
    if (slot.payload_bytes != change.length || slot.payload_bytes > HERALD_CBT_WRITE_BYTES_MAX) {
        return rotten("slot {} has {} bytes of data for {} sectors", drained_, slot.payload_bytes,
                      slot.sectors);
    }
    if (size == 0 || (slot.payload & (size - 1)) + slot.payload_bytes > size) {
        return rotten("the data of slot {} lies outside of the payload", drained_);
    }
    change.data = areas_.payload.subspan(slot.payload & (size - 1), slot.payload_bytes);
    return passed(change);
}

void CbtReader::emitted(uint64_t position) {
    if (!marks_.empty() && marks_.back().slots_end == drained_) {
        marks_.back().position = position;
        return;
    }
    if (marks_.size() >= kMarksMax) {
        for (size_t i = 1; i < marks_.size(); i += 2) marks_[i / 2] = marks_[i];
        marks_.resize(marks_.size() / 2);
    }
    marks_.push_back({drained_, position});
}

void CbtReader::all_read(uint64_t position) {
    if (!bare_) return;
    // Those before the oldest one without data are covered as they were; the others from here on.
    std::optional<uint64_t> before;
    while (!marks_.empty() && marks_.back().slots_end > *bare_) {
        before = marks_.back().position;
        marks_.pop_back();
    }
    const uint64_t end = marks_.empty() ? covered_ : marks_.back().slots_end;
    if (before && *bare_ > end) marks_.push_back({*bare_, *before});
    marks_.push_back({drained_, position});
    bare_.reset();
}

uint64_t CbtReader::slots_at(uint64_t position) const {
    const auto next =
        std::upper_bound(marks_.begin(), marks_.end(), position,
                         [](uint64_t wanted, const Mark& mark) { return wanted < mark.position; });
    const uint64_t end = next == marks_.begin() ? covered_ : std::prev(next)->slots_end;
    return bare_ ? std::min(end, *bare_) : end;
}

void CbtReader::forget(uint64_t position) {
    const uint64_t slots = slots_at(position);
    auto end = marks_.begin();
    while (end != marks_.end() && end->slots_end <= slots) covered_ = (end++)->slots_end;
    marks_.erase(marks_.begin(), end);
}

uint64_t CbtReader::releasable(uint64_t received_slots) const {
    const herald_cbt_header_abi& header = *areas_.header;
    const auto load = [](const uint64_t& field) {
        return __atomic_load_n(&field, __ATOMIC_RELAXED);
    };
    const uint64_t used = head() - load(header.tail);
    const uint64_t payload_used = load(header.payload_head) - load(header.payload_tail);
    const bool half_full =
        used > areas_.slots.size() / 2 || payload_used > areas_.payload.size() / 2;
    return half_full ? drained_ : std::min(received_slots, drained_);
}

}  // namespace herald::tracker
