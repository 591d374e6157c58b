// SPDX-License-Identifier: Apache-2.0
#include "user/replicator/scanner.h"

#include <algorithm>

namespace herald::replicator {

namespace {

// A block of a segment each: larger ones are copied and compressed from beyond the processor's
// cache.
constexpr uint64_t kWriteBytesMax = HERALD_HRL_BLOCK_BYTES_MAX;
static_assert(kWriteBytesMax <= HERALD_RECORD_DATA_BYTES_MAX);

}  // namespace

Chunk Scanner::begin(tracker::BlockRun run) {
    Chunk chunk;
    chunk.id = next_id_++;
    chunk.run = run;
    chunk.offset = run.first * HERALD_BLOCK_BYTES;
    HERALD_ASSERT(run.count > 0 && chunk.offset < disk_bytes_);
    chunk.length = std::min(run.count * HERALD_BLOCK_BYTES, disk_bytes_ - chunk.offset);
    chunks_[chunk.id] = {chunk, {{chunk.offset, chunk.offset + chunk.length}}};
    return chunk;
}

void Scanner::observe(const hrl::Record& record) {
    const uint64_t begin = record.offset;
    const uint64_t end = record.offset + record.length;
    if (begin == end) return;
    for (auto& [id, flight] : chunks_) {
        std::vector<Range> kept;
        for (const Range& range : flight.left) {
            if (range.begin < std::min(range.end, begin)) {
                kept.push_back({range.begin, std::min(range.end, begin)});
            }
            if (std::max(range.begin, end) < range.end) {
                kept.push_back({std::max(range.begin, end), range.end});
            }
        }
        flight.left = std::move(kept);
    }
}

Result<tracker::BlockRun> Scanner::completed(uint64_t id, ByteView data, const Emit& emit) {
    const auto found = chunks_.find(id);
    HERALD_ASSERT(found != chunks_.end());
    const InFlight flight = std::move(found->second);
    chunks_.erase(found);
    HERALD_ASSERT(data.size() == flight.chunk.length);

    for (const Range& range : flight.left) {
        uint64_t from = range.begin;
        while (from < range.end) {
            // One record: whole blocks of one kind, as many as fit.
            const auto piece_end = [&](uint64_t at) {
                return std::min((at / HERALD_BLOCK_BYTES + 1) * HERALD_BLOCK_BYTES, range.end);
            };
            const auto bytes = [&](uint64_t begin, uint64_t end) {
                return data.subspan(begin - flight.chunk.offset, end - begin);
            };
            uint64_t to = piece_end(from);
            const bool zero = all_zero(bytes(from, to));
            while (to < range.end) {
                const uint64_t next = piece_end(to);
                if (all_zero(bytes(to, next)) != zero) break;
                if (!zero && next - from > kWriteBytesMax) break;
                to = next;
            }
            hrl::Record record;
            record.kind = zero ? hrl::RecordKind::zeroes : hrl::RecordKind::write;
            record.offset = from;
            record.length = to - from;
            if (!zero) record.data = bytes(from, to);
            auto done = emit(record);
            if (!done) return pass(done);
            from = to;
        }
    }
    return flight.chunk.run;
}

tracker::BlockRun Scanner::failed(uint64_t id) {
    const auto found = chunks_.find(id);
    HERALD_ASSERT(found != chunks_.end());
    const tracker::BlockRun run = found->second.chunk.run;
    chunks_.erase(found);
    return run;
}

}  // namespace herald::replicator
