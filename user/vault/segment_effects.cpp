// SPDX-License-Identifier: Apache-2.0
#include "user/vault/segment_effects.h"

#include <algorithm>
#include <array>

#include "herald/limits.h"

namespace herald::vault {

using hrl::RecordKind;

namespace {

constexpr uint64_t kChunk = HERALD_BLOCK_BYTES;

uint64_t chunks_of(uint64_t bytes) { return (bytes + kChunk - 1) / kChunk; }

const Digest128& digest_of_zero_chunk() {
    static const Digest128 digest = xxh3_128(Bytes(kChunk));
    return digest;
}

// The chunk at either end held, or will hold, other bytes than its digest says; what is behind the
// new end is no part of the disk, and reads as zero if the disk grows again.
DigestRun run_of_resize(uint64_t before, uint64_t after) {
    const uint64_t first = std::min(before, after) / kChunk;
    return {first, chunks_of(std::max(before, after)) - first, {}};
}

}  // namespace

SegmentEffects::SegmentEffects(const hrl::SegmentHeader& header)
    : first_disk_bytes_(header.disk_bytes), disk_bytes_(header.disk_bytes) {}

Result<void> SegmentEffects::observe(const hrl::Record& record) {
    const bool covers_range =
        record.kind == RecordKind::write || record.kind == RecordKind::zeroes ||
        record.kind == RecordKind::discard || record.kind == RecordKind::secure_erase;
    if (covers_range &&
        (record.offset > disk_bytes_ || record.length > disk_bytes_ - record.offset)) {
        return fail(ErrorKind::corrupt,
                    "record {} covers bytes {} to {} of a disk that has {}: it could never be "
                    "restored",
                    record.position, record.offset, record.offset + record.length, disk_bytes_);
    }
    switch (record.kind) {
        case RecordKind::write:
            observe_range(record.offset, record.length, record.data, false);
            data_after_ = true;
            return {};
        case RecordKind::zeroes:
            observe_range(record.offset, record.length, {}, true);
            data_after_ = true;
            return {};
        case RecordKind::discard:
        case RecordKind::secure_erase:
            observe_range(record.offset, record.length, {}, false);
            data_after_ = true;
            return {};
        case RecordKind::resize:
            if (record.length != disk_bytes_) add_run(run_of_resize(disk_bytes_, record.length));
            disk_bytes_ = record.length;
            break;
        case RecordKind::reread:
            // A second one says nothing more until another marker comes.
            if (!markers_.empty() && markers_.back().record.kind == RecordKind::reread) {
                data_after_ = true;
                return {};
            }
            break;
        default:
            break;
    }
    if (markers_.size() >= HERALD_SEGMENT_MARKERS_MAX) {
        return fail(ErrorKind::operator_needed,
                    "the segment holds more than {} markers; a server takes no more",
                    HERALD_SEGMENT_MARKERS_MAX);
    }
    Marker marker{record, Bytes(record.data.begin(), record.data.end()), data_after_};
    marker.record.data = {};
    markers_.push_back(std::move(marker));
    data_after_ = false;
    return {};
}

// Chunks covered whole get a digest when their bytes are known; the others become unknown.
void SegmentEffects::observe_range(uint64_t offset, uint64_t length, ByteView data, bool zero) {
    const uint64_t end = offset + length;
    const uint64_t first = offset / kChunk;
    const uint64_t last = chunks_of(end);
    const auto whole = [&](uint64_t chunk) {
        return chunk * kChunk >= offset && std::min((chunk + 1) * kChunk, disk_bytes_) <= end;
    };
    if (data.empty() && !zero) {
        add_run({first, last - first, {}});
        return;
    }
    for (uint64_t chunk = first; chunk < last;) {
        if (!whole(chunk)) {
            add_run({chunk++, 1, {}});
            continue;
        }
        const uint64_t begin = chunk * kChunk;
        const uint64_t bytes = std::min(kChunk, disk_bytes_ - begin);
        if (!zero) {
            add_run({chunk++, 1, xxh3_128(data.subspan(begin - offset, bytes))});
            continue;
        }
        if (bytes < kChunk) {
            add_run({chunk++, 1, xxh3_128(Bytes(bytes))});
            continue;
        }
        const uint64_t run = end / kChunk - chunk;
        const bool known = zero_chunks_ + run <= HERALD_SEGMENT_ZERO_CHUNKS_MAX;
        if (known) zero_chunks_ += run;
        add_run({chunk, run, known ? digest_of_zero_chunk() : Digest128{}});
        chunk += run;
    }
}

void SegmentEffects::add_run(DigestRun run) {
    if (!digests_.empty()) {
        DigestRun& previous = digests_.back();
        const uint64_t previous_end = previous.first_chunk + previous.chunks;
        if (previous.digest == run.digest && run.first_chunk >= previous.first_chunk &&
            run.first_chunk <= previous_end) {
            previous.chunks =
                std::max(previous_end, run.first_chunk + run.chunks) - previous.first_chunk;
            return;
        }
    }
    digests_.push_back(run);
    if (digests_.size() < HERALD_SEGMENT_DIGEST_RUNS_MAX) return;
    // Too many to remember: that the chunks between the lowest and the highest are unknown is
    // always true enough, and costs only a comparison that sends more.
    uint64_t first = ~0ull;
    uint64_t end = 0;
    for (const DigestRun& each : digests_) {
        first = std::min(first, each.first_chunk);
        end = std::max(end, each.first_chunk + each.chunks);
    }
    digests_.assign(1, {first, end - first, {}});
}

std::vector<DigestRun> SegmentEffects::digests_after(uint64_t previous_disk_bytes) const {
    std::vector<DigestRun> runs;
    if (previous_disk_bytes != 0 && previous_disk_bytes != first_disk_bytes_) {
        runs.push_back(run_of_resize(previous_disk_bytes, first_disk_bytes_));
    }
    runs.insert(runs.end(), digests_.begin(), digests_.end());
    return runs;
}

Result<std::vector<TagVerdict>> SegmentEffects::advance(StreamState& state) const {
    std::vector<TagVerdict> tags;
    state.begin_segment(first_disk_bytes_);
    for (const Marker& marker : markers_) {
        if (marker.data_before) state.observe_data();
        hrl::Record record = marker.record;
        record.data = marker.payload;
        auto verdict = state.observe(record);
        if (!verdict) return pass(verdict);
        if (*verdict) tags.push_back(std::move(**verdict));
    }
    if (data_after_) state.observe_data();
    return tags;
}

}  // namespace herald::vault
