// SPDX-License-Identifier: Apache-2.0
// MemoryCatalog: a catalog in memory, for the simulator and for tests of what stands on a catalog.
// Its whole content is a value: a simulator copies it to say what a crash leaves.
// Callers: one thread. Failure: never of its own.
#pragma once

#include <map>
#include <set>

#include "user/vault/catalog.h"

namespace herald::vault {

struct MemoryDisk {
    DiskRow row;
    std::set<Uuid> sessions;
    std::map<uint64_t, SegmentRow> segments;  // by first position
    std::vector<PointRow> tags;
    std::map<uint64_t, Digest128> digests;
};

class MemoryCatalog : public Catalog {
  public:
    using State = std::map<Uuid, MemoryDisk>;
    MemoryCatalog() = default;
    explicit MemoryCatalog(State state) : state_(std::move(state)) {}
    const State& state() const { return state_; }

    Result<GrantReply> grant(const Uuid& disk, const Uuid& machine,
                             const wire::SessionRequest& request) override;
    Result<std::vector<CatalogOutcome>> commit(std::span<const Commit> commits) override;
    Result<void> bump_epochs(uint64_t at_least, const Uuid& nobody) override;
    Result<std::vector<DiskRow>> disks() override;
    Result<std::optional<DiskRow>> disk(const Uuid& disk) override;
    Result<std::vector<PointRow>> points(const Uuid& disk) override;
    Result<std::vector<PointRow>> refused_tags(const Uuid& disk, size_t limit) override;
    Result<std::vector<SegmentRow>> segments(const Uuid& disk, uint64_t after,
                                             size_t limit) override;
    Result<std::optional<SegmentRow>> segment(const Uuid& disk, uint64_t first) override;
    Result<std::vector<Digest128>> digests(const Uuid& disk, uint64_t first_chunk,
                                           uint64_t count) override;
    Result<store::StoreSpace> space() override { return store::StoreSpace{1ull << 40, 1ull << 40}; }

  private:
    CatalogOutcome commit_one(const Commit& commit);
    State state_;
};

}  // namespace herald::vault
