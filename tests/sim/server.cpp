// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/server.h"

#include <cerrno>

namespace herald::sim {

using replicator::Failure;
using replicator::failure_of;

namespace {

class Store : public store::ObjectStore {
  public:
    Store(Kept& kept, const Server::Hooks& hooks) : kept_(kept), hooks_(hooks) {}

    Result<store::PutOutcome> put(const std::string& name, ByteView bytes) override {
        try {
            hooks_.at_step("server.before_put");
        } catch (const ServerCrash&) {
            if (hooks_.torn()) {
                const ByteView part = bytes.first(bytes.size() / 2);
                kept_.objects.try_emplace(name, part.begin(), part.end());
            }
            throw;
        }
        if (hooks_.full()) {
            return tl::unexpected<Error>(Error{ErrorKind::retry, "no space left", ENOSPC});
        }
        if (kept_.objects.contains(name)) return store::PutOutcome::existed;
        kept_.objects[name] = Bytes(bytes.begin(), bytes.end());
        hooks_.at_step("server.after_put");
        return store::PutOutcome::created;
    }
    Result<Bytes> get(const std::string& name, uint64_t offset, uint64_t length) override {
        const Bytes& bytes = kept_.objects.at(name);
        const auto at = bytes.begin() + std::ptrdiff_t(offset);
        return Bytes(at, at + std::ptrdiff_t(length));
    }
    Result<store::ObjectInfo> stat(const std::string& name) override {
        return store::ObjectInfo{name, kept_.objects.at(name).size()};
    }
    Result<void> list(const std::string&,
                      const std::function<Result<void>(const store::ObjectInfo&)>&) override {
        return {};
    }
    Result<void> remove(const std::string& name) override {
        kept_.objects.erase(name);
        return {};
    }
    Result<store::StoreSpace> space() override { return store::StoreSpace{1ull << 40, 1ull << 39}; }

  private:
    Kept& kept_;
    const Server::Hooks& hooks_;
};

// A MemoryCatalog whose state is durable at once, with a step on each side of every change.
class Catalog : public vault::MemoryCatalog {
  public:
    Catalog(Kept& kept, const Server::Hooks& hooks)
        : vault::MemoryCatalog(kept.catalog), kept_(kept), hooks_(hooks) {}

    Result<vault::GrantReply> grant(const Uuid& disk, const Uuid& machine,
                                    const wire::SessionRequest& request) override {
        hooks_.at_step("server.before_grant");
        auto reply = vault::MemoryCatalog::grant(disk, machine, request);
        kept_.catalog = state();
        hooks_.at_step("server.after_grant");
        return reply;
    }
    Result<std::vector<vault::CatalogOutcome>> commit(
        std::span<const vault::Commit> commits) override {
        hooks_.at_step("server.before_commit");
        auto outcomes = vault::MemoryCatalog::commit(commits);
        kept_.catalog = state();
        if (outcomes) {
            for (size_t i = 0; i < commits.size(); ++i) {
                if ((*outcomes)[i] == vault::CatalogOutcome::done) {
                    hooks_.committed(commits[i].segment);
                }
            }
        }
        hooks_.at_step("server.after_commit");
        return outcomes;
    }

  private:
    Kept& kept_;
    const Server::Hooks& hooks_;
};

}  // namespace

struct Server::Parts {
    Hooks hooks;
    Uuid machine;
    Uuid disk;
    Store store;
    Catalog catalog;
    process_server::CommitQueue queue;
    process_server::DiskGate gate;

    Parts(Kept& kept, const Uuid& the_machine, const Uuid& the_disk, Hooks the_hooks)
        : hooks(std::move(the_hooks)),
          machine(the_machine),
          disk(the_disk),
          store(kept, hooks),
          catalog(kept, hooks),
          queue(catalog),
          gate(row_of(kept, machine, disk), store, catalog, queue) {}

    static vault::DiskRow row_of(const Kept& kept, const Uuid& machine, const Uuid& disk) {
        const auto found = kept.catalog.find(disk);
        if (found != kept.catalog.end()) return found->second.row;
        vault::DiskRow row;
        row.disk = disk;
        row.machine = machine;
        return row;
    }
};

Server::Server(Kept& kept, const Uuid& machine, const Uuid& disk, Hooks hooks)
    : parts_(std::make_unique<Parts>(kept, machine, disk, std::move(hooks))) {}

Server::~Server() = default;

Answer Server::session(const wire::SessionRequest& request) {
    auto reply = parts_->gate.grant(request);
    if (!reply) return failure_of(503, {});
    if (reply->outcome == vault::CatalogOutcome::fenced) {
        return failure_of(409, {wire::kErrorFenced, "superseded", 0});
    }
    reply->grant.window_segments = HERALD_WINDOW_SEGMENTS;
    return reply->grant;
}

Answer Server::commit_old(uint64_t epoch, uint64_t first, const std::string& digest,
                          ByteView body) {
    auto upload =
        process_server::verify_upload({parts_->machine, parts_->disk, epoch, first, digest}, body);
    if (!upload || !parts_->store.put(upload->row.object, body)) return failure_of(503, {});
    vault::Commit commit;
    commit.disk = parts_->disk;
    commit.segment = upload->row;
    commit.segment.epoch = parts_->gate.epoch();
    commit.digests = upload->effects.digests();
    const uint64_t last = upload->row.last_position;
    auto outcome = parts_->catalog.vault::MemoryCatalog::commit({&commit, 1});
    if (outcome->front() != vault::CatalogOutcome::done) return failure_of(503, {});
    parts_->hooks.committed(upload->row);
    return wire::SegmentAck{last, last};
}

Answer Server::put(uint64_t epoch, uint64_t first, const std::string& digest, ByteView body) {
    if (parts_->hooks.old_epoch && epoch != parts_->gate.epoch()) {
        return commit_old(epoch, first, digest, body);
    }
    if (epoch != parts_->gate.epoch()) return failure_of(409, {wire::kErrorFenced, "epoch", 0});
    auto upload =
        process_server::verify_upload({parts_->machine, parts_->disk, epoch, first, digest}, body);
    if (!upload) return failure_of(400, {wire::kErrorCorrupt, upload.error().message, 0});
    auto taken = parts_->gate.take(std::move(*upload), body);
    if (!taken) {
        if (taken.error().sys == ENOSPC) return failure_of(507, {wire::kErrorFull, "full", 1});
        if (taken.error().kind == ErrorKind::corrupt) {
            return failure_of(400, {wire::kErrorCorrupt, taken.error().message, 0});
        }
        return failure_of(503, {});
    }
    using V = process_server::OfferVerdict;
    switch (taken->verdict) {
        case V::commit:
        case V::hold:
        case V::duplicate:
            return wire::SegmentAck{taken->head, taken->head};
        case V::in_progress:
            return failure_of(503, {});
        case V::ahead:
            return failure_of(409, {wire::kErrorAhead, "window", 0});
        case V::fenced:
            return failure_of(409, {wire::kErrorFenced, "epoch", 0});
        case V::diverged:
            break;
    }
    return failure_of(409, {wire::kErrorDiverged, "other records", 0});
}

Answer Server::digests(uint64_t count) {
    auto found = parts_->catalog.digests(parts_->disk, 0, count);
    if (!found) return failure_of(503, {});
    Bytes bytes;
    for (const Digest128& digest : *found) {
        bytes.insert(bytes.end(), digest.bytes.begin(), digest.bytes.end());
    }
    return bytes;
}

}  // namespace herald::sim
