// SPDX-License-Identifier: Apache-2.0
// Scanner turns reads of the source disk into records by the scan rule: a chunk is noted before
// its read is submitted; ordered records that arrive while it is in flight go out at once and are
// cut out of it; when it completes, what is left of it goes out.
// Promise: applying the records in the order they are handed out gives the disk's newest content
// for every byte of a completed chunk; a byte of an older read never follows a newer record.
// Callers: one thread. Sans I/O. Owns: the ranges in flight, never the data.
// Failure: a chunk that could not be read is handed back in smaller pieces until single blocks
// are named.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <vector>

#include "user/hrl/record.h"
#include "user/tracker/dirty_map.h"

namespace herald::replicator {

struct Chunk {
    uint64_t id = 0;
    tracker::BlockRun run;
    uint64_t offset = 0;  // bytes
    uint64_t length = 0;  // bytes; the last block of a disk may be short
    bool operator==(const Chunk&) const = default;
};

class Scanner {
  public:
    explicit Scanner(uint64_t disk_bytes) : disk_bytes_(disk_bytes) {}

    // Notes the run as in flight: call before its read is submitted.
    Chunk begin(tracker::BlockRun run);
    // An ordered record was emitted: what it overlaps is dropped from every chunk in flight.
    void observe(const hrl::Record& record);

    using Emit = std::function<Result<void>(const hrl::Record&)>;
    // The chunk's read completed with `data` (chunk.length bytes). Hands out what is left of it:
    // zero blocks as zeroes, others as writes of at most HERALD_HRL_BLOCK_BYTES_MAX, neighbours
    // merged. position and time are for the receiver to fill in.
    Result<tracker::BlockRun> completed(uint64_t id, ByteView data, const Emit& emit);
    // The read failed: forgets the chunk and returns its run.
    tracker::BlockRun failed(uint64_t id);
    // Forgets everything in flight: completions that come later are not asked for.
    void reset() { chunks_.clear(); }

    size_t in_flight() const { return chunks_.size(); }
    uint64_t disk_bytes() const { return disk_bytes_; }

  private:
    struct Range {
        uint64_t begin = 0;
        uint64_t end = 0;
    };
    struct InFlight {
        Chunk chunk;
        std::vector<Range> left;  // ascending, disjoint; what no newer record has covered
    };
    uint64_t disk_bytes_;
    uint64_t next_id_ = 1;
    std::map<uint64_t, InFlight> chunks_;
};

}  // namespace herald::replicator
