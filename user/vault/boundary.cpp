// SPDX-License-Identifier: Apache-2.0
#include "user/vault/boundary.h"

#include "user/base/digest.h"
#include "user/hrl/segment_reader.h"

namespace herald::vault {

namespace {

constexpr size_t kListRows = 512;

class Walk {
  public:
    Walk(const Uuid& disk, const BoundaryChoice& choice) : disk_(disk), choice_(choice) {}

    // True when it was found: what follows need not be looked at.
    Result<bool> segment(const wire::SegmentInfo& info, const Bytes& bytes) {
        const std::string name =
            fmt::format("segment {} (positions {} to {})", to_string(info.segment),
                        info.first_position, info.last_position);
        if (bytes.size() != info.bytes || to_hex(xxh3_128(bytes).bytes) != info.digest) {
            return fail(ErrorKind::corrupt, "{}: its {} bytes are not what was stored", name,
                        bytes.size());
        }
        auto reader = hrl::SegmentReader::open(hrl::memory_source(bytes, name));
        if (!reader) return pass(reader);
        if (reader->header().disk != disk_ ||
            reader->header().first_position != info.first_position) {
            return fail(ErrorKind::corrupt, "{}: its header names another disk or place", name);
        }
        bytes_ += bytes.size();
        state_.begin_segment(reader->header().disk_bytes);
        for (;;) {
            auto record = reader->next();
            if (!record) return pass(record, name);
            if (!*record) return false;
            auto observed = state_.observe(**record);
            if (!observed) return pass(observed, name);
            auto found = boundary(**record);
            if (!found || *found) return found;
        }
    }

    Result<Boundary> end() const {
        if (choice_.position) {
            return fail(ErrorKind::operator_needed, "the stream ends at position {}", position_);
        }
        if (choice_.exact && !refusal_.empty()) {
            return fail(ErrorKind::operator_needed, "that moment itself is not restorable: {}",
                        refusal_);
        }
        if (choice_.exact && !passed_) {
            return fail(ErrorKind::operator_needed,
                        "the stored stream does not reach beyond that moment, so what was written "
                        "before it may be missing; take a point, or name an earlier moment");
        }
        if (newest_) return *newest_;
        return fail(ErrorKind::operator_needed, "nothing at or before that time is restorable: {}",
                    refusal_.empty() ? "the stream begins later" : refusal_);
    }
    const std::optional<Boundary>& newest() const { return newest_; }

  private:
    Result<bool> boundary(const hrl::Record& record) {
        position_ = record.position;
        const Boundary here{record.position, record.time_ns, state_.disk_bytes(), bytes_};
        std::string refusal = state_.refusal();
        if (choice_.position) {
            if (record.position != *choice_.position) return false;
            if (!refusal.empty()) {
                return fail(ErrorKind::operator_needed, "position {} is not restorable: {}",
                            record.position, refusal);
            }
            newest_ = here;
            return true;
        }
        if (record.time_ns > *choice_.time_ns) {
            passed_ = true;
            return false;
        }
        if (refusal.empty() && passed_ && choice_.exact) {
            refusal = "the machine's clock was set back, so the moment is there more than once";
        }
        if (refusal.empty()) {
            newest_ = here;
            refusal_.clear();
        } else if (choice_.exact || !newest_) {
            refusal_ = std::move(refusal);
        }
        return false;
    }

    const Uuid disk_;
    const BoundaryChoice choice_;
    StreamState state_;
    uint64_t position_ = 0;
    uint64_t bytes_ = 0;
    std::optional<Boundary> newest_;
    std::string refusal_;  // why the newest is not later
    bool passed_ = false;  // a record is later than the time
};

}  // namespace

Result<Boundary> find_boundary(SegmentProvider& provider, const Uuid& disk,
                               const BoundaryChoice& choice,
                               const std::function<Result<void>(uint64_t)>& step) {
    HERALD_ASSERT(choice.position.has_value() != choice.time_ns.has_value());
    Walk walk(disk, choice);
    for (uint64_t listed = 0;;) {
        auto page = provider.segments(disk, listed, kListRows);
        if (!page) return pass(page);
        if (page->empty()) return walk.end();
        for (const wire::SegmentInfo& info : *page) {
            if (info.first_position != listed + 1 || info.last_position < info.first_position) {
                return fail(ErrorKind::corrupt,
                            "segment {} does not follow position {}: segments are missing",
                            to_string(info.segment), listed);
            }
            if (info.bytes > HERALD_SEGMENT_BYTES_MAX) {
                return fail(ErrorKind::corrupt, "segment {} has {} bytes, more than one can have",
                            to_string(info.segment), info.bytes);
            }
            listed = info.last_position;
            auto bytes = provider.fetch(disk, info);
            if (!bytes) return pass(bytes);
            auto found = walk.segment(info, *bytes);
            if (!found) return pass(found);
            if (*found) return *walk.newest();
            if (step) {
                auto told = step(bytes->size());
                if (!told) return pass(told);
            }
        }
    }
}

}  // namespace herald::vault
