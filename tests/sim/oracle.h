// SPDX-License-Identifier: Apache-2.0
// Oracle knows what the promises demand, from its own bookkeeping and the bytes in the store, and
// throws a Violation that names the promise which does not hold.
// acked_is_kept, dirty_or_delivered, torn_is_refused, fenced, exact_at_point.
// Callers: one thread.
#pragma once

#include <optional>
#include <set>

#include "tests/sim/machine.h"
#include "tests/sim/server.h"
#include "tests/sim/trace.h"
#include "user/base/digest.h"
#include "user/hrl/segment_writer.h"

namespace herald::sim {

class Oracle {
  public:
    Oracle(Trace& trace, const Uuid& disk, uint64_t disk_bytes)
        : trace_(trace), disk_(disk), disk_bytes_(disk_bytes), image_(cells_of(disk_bytes)) {}

    void expect_ordered() { ordered_ = true; }
    // A replicator handed this segment to its session.
    void made(const hrl::Segment& segment, std::shared_ptr<const History> history);
    // Of an ordered machine: what the replicator makes of a tag that is in its stream now. A later
    // session may be offered the tag again, and refuses it.
    void placed(const Uuid& tag, uint64_t epoch, const std::string& refusal) {
        placed_[{tag, epoch}] = refusal;
    }
    // A replicator tagged the moment at which its disk held these cells.
    void tagged(const Uuid& tag, Cells cells) { points_[tag] = std::move(cells); }
    void granted(const wire::SessionRequest& request, const vault::GrantReply& reply);
    void committed(Server& server, const vault::Commit& commit);
    void acknowledged(const wire::SegmentAck& ack, const Server& server);
    // The catalog is an older one now: what was acknowledged since is lost by that.
    void rewound(Server& server);

    // At any instant.
    void check_dirty(const Machine& machine, const char* name, const Server& server) const;
    // After a crash and at the end: everything acknowledged is there, whole, and applying it
    // from the beginning gives every point.
    void check_stored(Server& server, bool replay);

    const Cells& image() const { return image_; }
    // Writes and zeroes applied so far.
    uint64_t data_records() const { return data_records_; }
    size_t points_accepted() const { return accepted_.size(); }
    // Of ordered spans, each compared with what a power cut could have left.
    uint64_t boundaries() const { return boundaries_; }

  private:
    void apply(Server& server, const vault::SegmentRow& row);
    void check_boundary(const hrl::Record& record, const History& history);
    void check_points(Server& server);
    const vault::MemoryDisk* entry(const Server& server) const;

    struct Made {
        uint64_t epoch = 0;
        uint64_t first = 0;
        std::shared_ptr<const History> history;  // of an ordered machine
    };
    Trace& trace_;
    Uuid disk_;
    uint64_t disk_bytes_;
    Cells image_;  // what the catalogued segments give
    uint64_t data_records_ = 0;
    uint64_t head_ = 0;   // up to here
    uint64_t epoch_ = 0;  // newest granted
    uint64_t acked_ = 0;  // newest position acknowledged as stored
    std::map<Digest128, Made> made_;
    std::map<Uuid, Cells> points_;  // by tag: the source's disk
    std::map<Uuid, Cells> images_;  // by tag: the image there
    std::set<Uuid> accepted_;
    std::map<std::pair<Uuid, uint64_t>, std::string> placed_;  // by tag and epoch
    std::map<uint64_t, uint64_t> tag_epochs_;                  // by position
    vault::StreamState state_;                                 // at head_
    uint64_t boundaries_ = 0;
    bool ordered_ = false;
    std::map<uint64_t, Digest128> rows_;  // first position -> digest, as committed
};

}  // namespace herald::sim
