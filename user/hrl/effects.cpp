// SPDX-License-Identifier: Apache-2.0
#include "user/hrl/effects.h"

#include <algorithm>
#include <optional>

#include "herald/limits.h"
#include "user/base/digest.h"

namespace herald::hrl {

namespace {

constexpr uint64_t kSector = HERALD_SECTOR_BYTES;
// What an extent costs beside its digests, in units of 8 bytes: a map node and a vector.
constexpr uint64_t kExtentCost = 16;

uint64_t zero_digest() {
    static const uint64_t kDigest = xxh3_64(Bytes(kSector));
    return kDigest;
}

uint64_t cost_of(const Effects::Extent& extent) { return kExtentCost + extent.digests.size(); }

// Walks the extents of one journal in step with those of another.
class Cursor {
  public:
    explicit Cursor(const Effects& effects)
        : at_(effects.extents().begin()), end_(effects.extents().end()) {}

    // Nothing: the journal does not touch the sector.
    std::optional<uint64_t> digest(uint64_t offset) const {
        if (at_ == end_ || offset < at_->first) return std::nullopt;
        const auto& digests = at_->second.digests;
        return digests.empty() ? zero_digest() : digests[(offset - at_->first) / kSector];
    }
    bool touches(uint64_t offset) const { return at_ != end_ && offset >= at_->first; }
    bool is_zero() const { return at_->second.digests.empty(); }
    // Where what is true of `offset` ends to be so.
    uint64_t until(uint64_t offset) const {
        if (at_ == end_) return UINT64_MAX;
        return offset < at_->first ? at_->first : at_->second.end;
    }
    void advance_to(uint64_t offset) {
        while (at_ != end_ && at_->second.end <= offset) ++at_;
    }

  private:
    std::map<uint64_t, Effects::Extent>::const_iterator at_;
    std::map<uint64_t, Effects::Extent>::const_iterator end_;
};

// Joins neighbours.
class Joiner {
  public:
    Joiner(const std::function<void(const DifferentRange&)>& visit, ComparedEffects& totals)
        : visit_(visit), totals_(totals) {}
    void add(uint64_t offset, uint64_t length, Difference difference) {
        if (open_.length != 0 && open_.offset + open_.length == offset &&
            open_.difference == difference) {
            open_.length += length;
            return;
        }
        flush();
        open_ = {offset, length, difference};
    }
    void flush() {
        if (open_.length == 0) return;
        totals_.ranges += 1;
        totals_.bytes += open_.length;
        visit_(open_);
        open_ = {};
    }

  private:
    const std::function<void(const DifferentRange&)>& visit_;
    ComparedEffects& totals_;
    DifferentRange open_;
};

void compare_window(const Effects& first, const Effects& second, Joiner& joiner) {
    Cursor a(first);
    Cursor b(second);
    for (uint64_t at = 0;;) {
        a.advance_to(at);
        b.advance_to(at);
        const uint64_t end = std::min(a.until(at), b.until(at));
        if (end == UINT64_MAX) return;
        if (a.touches(at) != b.touches(at)) {
            joiner.add(at, end - at,
                       a.touches(at) ? Difference::only_first : Difference::only_second);
        } else if (a.touches(at) && !(a.is_zero() && b.is_zero())) {
            for (uint64_t sector = at; sector < end; sector += kSector) {
                if (a.digest(sector) != b.digest(sector)) {
                    joiner.add(sector, kSector, Difference::content);
                }
            }
        }
        at = end;
    }
}

Result<Effects> effects_of(const JournalOpener& open, uint64_t begin, uint64_t end,
                           uint64_t cost_max) {
    auto journal = open();
    if (!journal) return pass(journal);
    Effects effects(begin, end, cost_max);
    const uint64_t disk_bytes = (*journal)->facts().disk_bytes.value_or(0);
    effects.begin_disk(disk_bytes);
    if ((*journal)->facts().contents == Contents::image_layer) effects.zero(0, disk_bytes);
    auto summary = verify_journal(**journal, [&](const Record& record) {
        effects.apply(record);
        return Result<void>();
    });
    if (!summary) return pass(summary);
    return effects;
}

}  // namespace

void Effects::apply(const Record& record) {
    const uint64_t end = record.offset + record.length;
    switch (record.kind) {
        case RecordKind::write: {
            // Only sectors in the window are worth a digest.
            const uint64_t from = std::max(record.offset, begin_);
            const uint64_t to = std::min(end, end_);
            if (from >= to) return;
            std::vector<uint64_t> digests((to - from) / kSector);
            for (size_t i = 0; i < digests.size(); ++i) {
                digests[i] =
                    xxh3_64(record.data.subspan(from - record.offset + i * kSector, kSector));
            }
            return set(from, to, std::move(digests));
        }
        case RecordKind::zeroes:
        case RecordKind::discard:
        case RecordKind::secure_erase:
            return set(record.offset, end, {});
        case RecordKind::resize:
            // What is cut off reads as zero if it comes back, and so does what is new.
            if (disk_bytes_ != 0) {
                set(std::min(disk_bytes_, record.length), std::max(disk_bytes_, record.length), {});
            }
            disk_bytes_ = record.length;
            return;
        default:
            return;
    }
}

void Effects::zero(uint64_t offset, uint64_t end) { set(offset, end, {}); }

void Effects::set(uint64_t offset, uint64_t end, std::vector<uint64_t> digests) {
    offset = std::max(offset, begin_);
    end = std::min(end, end_);
    if (offset >= end) return;
    clear(offset, end);
    // A scan of an empty disk is one range of zeroes.
    if (digests.empty()) {
        auto after = extents_.lower_bound(offset);
        if (after != extents_.end() && after->first == end && after->second.digests.empty()) {
            end = after->second.end;
            cost_ -= cost_of(after->second);
            after = extents_.erase(after);
        }
        if (after != extents_.begin()) {
            auto before = std::prev(after);
            if (before->second.end == offset && before->second.digests.empty()) {
                before->second.end = end;
                return;
            }
        }
    }
    put(offset, {end, std::move(digests)});
    if (cost_ <= cost_max_) return;
    // Half of it is kept, at least one extent; what is behind is for another pass.
    uint64_t kept = 0;
    for (const auto& [begin, extent] : extents_) {
        if (kept != 0 && kept + cost_of(extent) > cost_max_ / 2) return cut(begin);
        kept += cost_of(extent);
    }
}

void Effects::put(uint64_t offset, Extent extent) {
    if (offset >= extent.end) return;
    cost_ += cost_of(extent);
    extents_.emplace(offset, std::move(extent));
}

// Takes away what is known of a range; extents that cross its borders are split.
void Effects::clear(uint64_t offset, uint64_t end) {
    auto it = extents_.upper_bound(offset);
    if (it != extents_.begin() && std::prev(it)->second.end > offset) --it;
    while (it != extents_.end() && it->first < end) {
        const uint64_t begin = it->first;
        Extent extent = std::move(it->second);
        cost_ -= cost_of(extent);
        it = extents_.erase(it);
        const auto part = [&](uint64_t from, uint64_t to) {
            Extent piece{to, {}};
            if (!extent.digests.empty() && from < to) {
                piece.digests.assign(extent.digests.begin() + ptrdiff_t((from - begin) / kSector),
                                     extent.digests.begin() + ptrdiff_t((to - begin) / kSector));
            }
            put(from, std::move(piece));
        };
        part(begin, std::min(offset, extent.end));
        part(end, extent.end);
    }
}

void Effects::cut(uint64_t end) {
    if (end >= end_) return;
    clear(end, end_);
    end_ = end;
}

const char* to_string(Difference difference) {
    switch (difference) {
        case Difference::content:
            return "content";
        case Difference::only_first:
            return "only-first";
        case Difference::only_second:
            return "only-second";
    }
    return "unknown";
}

Result<ComparedEffects> compare_effects(const JournalOpener& first, const JournalOpener& second,
                                        const std::function<void(const DifferentRange&)>& visit,
                                        uint64_t cost_max) {
    ComparedEffects totals;
    Joiner joiner(visit, totals);
    for (uint64_t begin = 0; begin < HERALD_DISK_BYTES_MAX;) {
        auto a = effects_of(first, begin, HERALD_DISK_BYTES_MAX, cost_max);
        if (!a) return pass(a);
        auto b = effects_of(second, begin, a->end(), cost_max);
        if (!b) return pass(b);
        a->cut(b->end());
        compare_window(*a, *b, joiner);
        totals.passes += 1;
        totals.first_disk_bytes = a->disk_bytes();
        totals.second_disk_bytes = b->disk_bytes();
        begin = b->end();
    }
    joiner.flush();
    return totals;
}

}  // namespace herald::hrl
