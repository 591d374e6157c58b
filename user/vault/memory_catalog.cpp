// SPDX-License-Identifier: Apache-2.0
#include "user/vault/memory_catalog.h"

#include <algorithm>

namespace herald::vault {

Result<GrantReply> MemoryCatalog::grant(const Uuid& disk, const Uuid& machine,
                                        const wire::SessionRequest& request) {
    const auto found = state_.find(disk);
    if (found != state_.end() && found->second.row.machine != machine) {
        return GrantReply{CatalogOutcome::forbidden, {}};
    }
    if (found != state_.end() && found->second.row.session != request.session &&
        found->second.sessions.contains(request.session)) {
        return GrantReply{CatalogOutcome::fenced, {}};
    }
    // Whoever does not know yet that a session is theirs has sent nothing in it: one that is asked
    // for again after it stored something is a clone's, or a reverted machine's.
    if (found != state_.end() && found->second.row.session == request.session &&
        !found->second.segments.empty() &&
        found->second.segments.rbegin()->second.epoch == found->second.row.epoch) {
        return GrantReply{CatalogOutcome::fenced, {}};
    }
    MemoryDisk& entry = state_[disk];
    DiskRow& row = entry.row;
    row.disk = disk;
    row.machine = machine;
    row.name = request.name;
    row.identity = request.identity;
    row.disk_bytes = request.disk_bytes;
    if (row.session != request.session) {
        row.epoch += 1;
        row.previous_session = row.session;
        row.session = request.session;
        entry.sessions.insert(request.session);
    }
    GrantReply reply;
    reply.grant.epoch = row.epoch;
    reply.grant.head = row.head;
    reply.grant.head_segment = row.head_segment;
    reply.grant.previous_session = row.previous_session;
    if (!entry.segments.empty()) reply.grant.head_epoch = entry.segments.rbegin()->second.epoch;
    reply.grant.digests = !entry.digests.empty();
    reply.grant.complete = row.state.complete();
    return reply;
}

Result<std::vector<CatalogOutcome>> MemoryCatalog::commit(std::span<const Commit> commits) {
    std::vector<CatalogOutcome> outcomes;
    for (const Commit& commit : commits) outcomes.push_back(commit_one(commit));
    return outcomes;
}

CatalogOutcome MemoryCatalog::commit_one(const Commit& commit) {
    const auto found = state_.find(commit.disk);
    if (found == state_.end()) return CatalogOutcome::not_found;
    MemoryDisk& entry = found->second;
    DiskRow& row = entry.row;
    const SegmentRow& segment = commit.segment;
    if (segment.epoch != row.epoch) return CatalogOutcome::fenced;
    if (const auto same = entry.segments.find(segment.first_position);
        same != entry.segments.end() && same->second == segment) {
        return CatalogOutcome::done;
    }
    if (segment.first_position != row.head + 1 || segment.last_position <= row.head ||
        segment.previous_segment != row.head_segment) {
        return CatalogOutcome::diverged;
    }
    entry.segments[segment.first_position] = segment;
    row.head = segment.last_position;
    row.head_segment = segment.segment;
    row.segments += 1;
    row.stored_bytes += segment.bytes;
    row.raw_bytes += segment.raw_bytes;
    if (commit.state) row.state = *commit.state;
    for (const TagVerdict& verdict : commit.tags) {
        PointRow tag = to_row(verdict);
        // Running totals here; points() makes differences of them.
        tag.sent_bytes = row.stored_bytes;
        tag.raw_bytes = row.raw_bytes;
        entry.tags.push_back(tag);
        if (!tag.refusal.empty()) continue;
        row.points += 1;
        row.newest_point_ns = std::max(row.newest_point_ns, tag.time_ns);
    }
    for (const DigestRun& run : commit.digests) {
        const uint64_t end = run.first_chunk + run.chunks;
        entry.digests.erase(entry.digests.lower_bound(run.first_chunk),
                            entry.digests.lower_bound(end));
        if (run.digest.is_unknown()) continue;
        for (uint64_t chunk = run.first_chunk; chunk < end; ++chunk) {
            entry.digests[chunk] = run.digest;
        }
    }
    return CatalogOutcome::done;
}

Result<void> MemoryCatalog::bump_epochs(uint64_t at_least, const Uuid& nobody) {
    for (auto& [id, entry] : state_) {
        entry.row.epoch = std::max(entry.row.epoch + 1, at_least);
        entry.row.previous_session = entry.row.session;
        entry.row.session = nobody;
        entry.sessions.insert(nobody);
    }
    return {};
}

Result<std::vector<DiskRow>> MemoryCatalog::disks() {
    std::vector<DiskRow> rows;
    for (const auto& [id, entry] : state_) rows.push_back(entry.row);
    std::stable_sort(rows.begin(), rows.end(),
                     [](const DiskRow& a, const DiskRow& b) { return a.name < b.name; });
    return rows;
}

Result<std::optional<DiskRow>> MemoryCatalog::disk(const Uuid& disk) {
    const auto found = state_.find(disk);
    if (found == state_.end()) return std::optional<DiskRow>();
    return std::optional(found->second.row);
}

Result<std::vector<PointRow>> MemoryCatalog::points(const Uuid& disk) {
    std::vector<PointRow> points;
    const auto found = state_.find(disk);
    if (found == state_.end()) return points;
    uint64_t sent = 0;
    uint64_t raw = 0;
    for (const PointRow& tag : found->second.tags) {
        if (!tag.refusal.empty()) continue;
        points.push_back(tag);
        points.back().sent_bytes -= std::exchange(sent, tag.sent_bytes);
        points.back().raw_bytes -= std::exchange(raw, tag.raw_bytes);
    }
    return points;
}

Result<std::vector<PointRow>> MemoryCatalog::refused_tags(const Uuid& disk, size_t limit) {
    std::vector<PointRow> tags;
    const auto found = state_.find(disk);
    if (found == state_.end()) return tags;
    const auto& all = found->second.tags;
    for (auto tag = all.rbegin(); tag != all.rend() && tags.size() < limit; ++tag) {
        if (tag->refusal.empty()) continue;
        tags.push_back(*tag);
        tags.back().sent_bytes = 0;
        tags.back().raw_bytes = 0;
    }
    return tags;
}

Result<std::vector<SegmentRow>> MemoryCatalog::segments(const Uuid& disk, uint64_t after,
                                                        size_t limit) {
    std::vector<SegmentRow> rows;
    const auto found = state_.find(disk);
    if (found == state_.end()) return rows;
    for (const auto& [first, row] : found->second.segments) {
        if (rows.size() >= limit) break;
        if (row.last_position > after) rows.push_back(row);
    }
    return rows;
}

Result<std::optional<SegmentRow>> MemoryCatalog::segment(const Uuid& disk, uint64_t first) {
    const auto found = state_.find(disk);
    if (found == state_.end()) return std::optional<SegmentRow>();
    const auto row = found->second.segments.find(first);
    if (row == found->second.segments.end()) return std::optional<SegmentRow>();
    return std::optional(row->second);
}

Result<std::vector<Digest128>> MemoryCatalog::digests(const Uuid& disk, uint64_t first_chunk,
                                                      uint64_t count) {
    std::vector<Digest128> digests(count);
    const auto found = state_.find(disk);
    if (found == state_.end()) return digests;
    for (auto it = found->second.digests.lower_bound(first_chunk);
         it != found->second.digests.end() && it->first - first_chunk < count; ++it) {
        digests[it->first - first_chunk] = it->second;
    }
    return digests;
}

}  // namespace herald::vault
