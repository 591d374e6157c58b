// SPDX-License-Identifier: Apache-2.0
#include "user/process_server/disk_gate.h"

#include <spdlog/spdlog.h>

#include "user/base/crash_point.h"

namespace herald::process_server {

DiskGate::DiskGate(const vault::DiskRow& row, store::ObjectStore& store, vault::Catalog& catalog,
                   CommitQueue& queue)
    : disk_(row.disk),
      machine_(row.machine),
      store_(store),
      catalog_(catalog),
      queue_(queue),
      intake_(row.epoch, row.head, row.head_segment),
      state_(row.state) {}

uint64_t DiskGate::epoch() const {
    const std::lock_guard hold(lock_);
    return intake_.epoch();
}

Result<vault::GrantReply> DiskGate::grant(const wire::SessionRequest& request) {
    const std::lock_guard hold(lock_);
    auto reply = catalog_.grant(disk_, machine_, request);
    if (!reply || reply->outcome != vault::CatalogOutcome::done) return reply;
    if (reply->grant.epoch != intake_.epoch()) {
        // A commit may have failed after it was durable: what the catalog holds is not garbage,
        // and its head is the truth.
        auto row = catalog_.disk(disk_);
        if (!row) return pass(row);
        for (const auto& [first, pending] : pending_) {
            if (first > reply->grant.head) (void)store_.remove(pending.row.object);
        }
        pending_.clear();
        HERALD_ASSERT(row->has_value());
        intake_ = DiskIntake((*row)->epoch, (*row)->head, (*row)->head_segment);
        state_ = (*row)->state;
    }
    return reply;
}

TakeOutcome DiskGate::outcome(OfferVerdict verdict) const {
    return {verdict, intake_.epoch(), intake_.head(), intake_.head_segment(), {}};
}

TakeOutcome DiskGate::look(uint64_t epoch) const {
    const std::lock_guard hold(lock_);
    const bool newest = epoch == intake_.epoch() && epoch != 0;
    return outcome(newest ? OfferVerdict::duplicate : OfferVerdict::fenced);
}

Result<TakeOutcome> DiskGate::take(Upload upload, ByteView body) {
    const OfferedSegment offered = upload.offered;
    std::unique_lock hold(lock_);
    std::optional<OfferedSegment> stored;
    if (offered.first <= intake_.head()) {
        auto row = catalog_.segment(disk_, offered.first);
        if (!row) return pass(row);
        if (*row) stored = to_offered(**row);
    }
    const OfferVerdict verdict = intake_.offer(offered, stored);
    if (verdict == OfferVerdict::commit || verdict == OfferVerdict::hold) {
        hold.unlock();
        auto put = put_object(upload.row, body);
        hold.lock();
        if (!put) {
            intake_.abandon(offered);
            return pass(put);
        }
        crash_point("service.stored");
        if (!intake_.arrived(offered)) {
            // A newer session was granted meanwhile; no row can ever name this object.
            (void)store_.remove(upload.row.object);
            return outcome(OfferVerdict::fenced);
        }
        pending_.insert_or_assign(offered.first,
                                  Pending{std::move(upload.row), std::move(upload.effects)});
    } else if (verdict != OfferVerdict::duplicate) {
        return outcome(verdict);
    }
    // A duplicate, too: what arrived may be waiting because a commit failed before.
    const auto stop = commit_ready();
    if (!stop) crash_point("service.committed");
    return fate_of(offered, verdict, stop);
}

Result<TakeOutcome> DiskGate::fate_of(const OfferedSegment& offered, OfferVerdict verdict,
                                      const std::optional<Stop>& stop) const {
    TakeOutcome fate = outcome(verdict);
    if (offered.epoch != intake_.epoch()) {
        fate.verdict = OfferVerdict::fenced;
    } else if (offered.last <= intake_.head() || intake_.holds(offered)) {
        if (stop && stop->first == offered.first) return tl::unexpected(stop->error);
    } else if (stop && stop->first == offered.first && stop->refused) {
        fate.refusal = stop->error.message;
    } else if (stop && !stop->refused) {
        return tl::unexpected(stop->error);
    } else {
        // It was held, and what came before it names another successor.
        fate.verdict = OfferVerdict::diverged;
    }
    return fate;
}

Result<void> DiskGate::put_object(const vault::SegmentRow& row, ByteView body) {
    auto put = store_.put(row.object, body);
    if (!put) return pass(put);
    if (*put == store::PutOutcome::created) return {};
    // Left by a crash before its commit, or by a commit that failed: no row names it, and nobody
    // else holds its slot. Only the very same bytes will do.
    auto info = store_.stat(row.object);
    if (!info) return pass(info);
    if (info->bytes == body.size()) {
        auto bytes = store_.get(row.object, 0, info->bytes);
        if (bytes && xxh3_128(*bytes) == row.digest) return {};
    }
    auto removed = store_.remove(row.object);
    if (!removed) return removed;
    put = store_.put(row.object, body);
    if (!put) return pass(put);
    if (*put != store::PutOutcome::created) {
        return fail(ErrorKind::retry, "object {} is being written by somebody else", row.object);
    }
    return {};
}

// Commits what continues the head, as far as it goes.
std::optional<DiskGate::Stop> DiskGate::commit_ready() {
    for (;;) {
        drop_diverged();
        const auto next = intake_.next();
        if (!next) return std::nullopt;
        const auto found = pending_.find(next->first);
        HERALD_ASSERT(found != pending_.end());
        const Pending& pending = found->second;
        vault::StreamState state = state_;
        auto tags = pending.effects.advance(state);
        if (!tags) {
            intake_.abandon(*next);
            drop(found);
            tags.error().message =
                fmt::format("segment at position {}: {}", next->first, tags.error().message);
            return Stop{next->first, true, tags.error()};
        }
        const auto digests = pending.effects.digests_after(state_.disk_bytes());
        vault::Commit commit;
        commit.disk = disk_;
        commit.segment = pending.row;
        commit.tags = *tags;
        commit.state = &state;
        commit.digests = digests;
        auto outcome = queue_.commit(commit);
        if (!outcome) return Stop{next->first, false, outcome.error()};
        if (*outcome != vault::CatalogOutcome::done) {
            // The catalog is the truth: another server has this disk now, or it was restored.
            spdlog::warn("disk {}: the catalog says {} to position {}; reading its state again",
                         to_string(disk_), to_string(*outcome), next->first);
            return Stop{next->first, false, reload()};
        }
        for (const vault::TagVerdict& tag : *tags) {
            if (tag.refusal.empty()) continue;
            spdlog::warn("disk {}: tag '{}' at position {} is no recovery point: {}",
                         to_string(disk_), tag.tag.name, tag.position, tag.refusal);
        }
        state_ = std::move(state);
        intake_.committed(*next);
        pending_.erase(found);
    }
}

// No row names its object, and none will.
void DiskGate::drop(std::map<uint64_t, Pending>::iterator pending) {
    (void)store_.remove(pending->second.row.object);
    pending_.erase(pending);
}

// A held segment that turned out not to follow the head: it will be refused when it comes again.
void DiskGate::drop_diverged() {
    while (const auto diverged = intake_.take_diverged()) {
        const auto found = pending_.find(diverged->first);
        if (found != pending_.end()) drop(found);
    }
}

// What to answer: whoever sends again finds the state that the catalog has now.
Error DiskGate::reload() {
    auto row = catalog_.disk(disk_);
    if (!row) return row.error();
    if (!*row) {
        return fail(ErrorKind::operator_needed, "disk {} is gone from the catalog",
                    to_string(disk_))
            .value();
    }
    // Objects whose names the catalog may know by now stay; the next start collects the rest.
    pending_.clear();
    intake_ = DiskIntake((*row)->epoch, (*row)->head, (*row)->head_segment);
    state_ = (*row)->state;
    return fail(ErrorKind::retry, "disk {} changed in the catalog; send again", to_string(disk_))
        .value();
}

}  // namespace herald::process_server
