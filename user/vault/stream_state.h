// SPDX-License-Identifier: Apache-2.0
// StreamState observes the records of one change stream in order and says of each tag whether the
// image at it is a recovery point, or why not.
// A stream is fuzzy: before its first session; until a scan of the whole disk (cause initial, full
// or digest) has ended, for catching up adds to a copy that must be there; while a scan is open;
// from an activation, a re-read, a growth of the disk or a change of mode until a scan that began
// after it has ended; after a scan that could not read a block until one ends that could. An
// unordered stream holds a point only right after a quiescent scan_end (nothing but tags between),
// and only for a tag taken under a freeze. A refused tag is reported with its reason, never
// dropped. Callers: one thread; sans I/O; copyable, so that a commit can fail without a trace.
// Failure: corrupt when a marker's payload does not decode or scans are open without bound.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "user/hrl/record.h"

namespace herald::vault {

struct TagVerdict {
    hrl::Tag tag;
    uint64_t position = 0;
    uint64_t disk_bytes = 0;  // at the tag
    std::string refusal;      // empty: the tag is a recovery point
};

class StreamState {
  public:
    // The disk's size as the header of the segment that follows says: it counts, whether or not a
    // resize record announced it.
    void begin_segment(uint64_t disk_bytes);
    Result<std::optional<TagVerdict>> observe(const hrl::Record& record);
    // As observe() of a write, zeroes or discard: all the same to the rules above.
    void observe_data();

    // Why a tag at this place would be refused; empty when it would land.
    std::string refusal() const;
    // "initial sync" until a first scan of the whole disk has ended; "fuzzy" while the end of the
    // stream can be no moment; else "protected". An unordered stream between points is "protected".
    std::string state() const;
    std::string cause() const;  // why it is not "protected"; empty when it is

    // A scan of the whole disk has ended: what follows may be catching up.
    bool complete() const { return ever_scanned_; }
    uint64_t disk_bytes() const { return disk_bytes_; }
    hrl::StreamMode mode() const { return mode_; }

    // JSON, for the catalog's row and for people who look at it.
    std::string serialize() const;
    static Result<StreamState> parse(std::string_view text);
    bool operator==(const StreamState&) const = default;

  private:
    struct OpenScan {
        uint64_t scan = 0;
        bool whole = false;   // of the whole disk, not only of what changed
        bool covers = false;  // began after whatever made the stream need a scan
        bool operator==(const OpenScan&) const = default;
    };
    void need_scan(std::string cause);
    std::string standing_refusal() const;

    uint64_t disk_bytes_ = 0;
    hrl::StreamMode mode_ = hrl::StreamMode::unordered;
    bool active_ = false;        // a session has begun
    bool ever_scanned_ = false;  // a scan of the whole disk has ended, with no unreadable block
    bool quiescent_ = false;     // nothing but tags since a quiescent scan_end
    std::string needs_scan_;     // why a scan has to end before any moment; empty when it has
    std::vector<OpenScan> open_;
};

}  // namespace herald::vault
