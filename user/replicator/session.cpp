// SPDX-License-Identifier: Apache-2.0
#include "user/replicator/session.h"

#include <algorithm>

namespace herald::replicator {

Failure failure_of(unsigned status, const wire::ErrorBody& body) {
    Failure failure;
    failure.message = body.message.empty() ? fmt::format("HTTP status {}", status) : body.message;
    failure.retry_after_ms = std::min<uint64_t>(body.retry_after_s, 3600) * 1000;
    if (body.code == wire::kErrorFenced) {
        failure.kind = FailureKind::fenced;
    } else if (body.code == wire::kErrorDiverged || body.code == wire::kErrorNotFound) {
        // Not known any more: the server's catalog is from before this disk's first session.
        failure.kind = FailureKind::diverged;
    } else if (body.code == wire::kErrorAhead) {
        failure.kind = FailureKind::ahead;
    } else if (body.code == wire::kErrorCorrupt) {
        failure.kind = FailureKind::corrupt;
    } else if (body.code == wire::kErrorFull || status == 507) {
        failure.kind = FailureKind::full;
    } else if (body.code == wire::kErrorBusy || body.code == wire::kErrorInternal ||
               status >= 500 || status == 429 || status == 408) {
        failure.kind = FailureKind::busy;
    } else {
        failure.kind = FailureKind::refused;
    }
    return failure;
}

const char* to_string(FailureKind kind) {
    switch (kind) {
        case FailureKind::unreachable:
            return "unreachable";
        case FailureKind::busy:
            return "busy";
        case FailureKind::full:
            return "full";
        case FailureKind::ahead:
            return "ahead";
        case FailureKind::refused:
            return "refused";
        case FailureKind::corrupt:
            return "corrupt";
        case FailureKind::fenced:
            return "fenced";
        case FailureKind::diverged:
            return "diverged";
    }
    return "unknown";
}

Session::Session(SessionOptions options, const Uuid& id) : options_(options), id_(id) {}

size_t Session::sending() const {
    return size_t(std::count_if(queue_.begin(), queue_.end(),
                                [](const Queued& q) { return q.phase == Phase::sending; }));
}

std::optional<Session::Action> Session::next(uint64_t now_ms, bool vouched) {
    if (ended_ || now_ms < not_before_ms_) return std::nullopt;
    if (!grant_) {
        if (ask_ticket_ != 0) return std::nullopt;
        ask_ticket_ = next_ticket_++;
        return Ask{ask_ticket_};
    }
    if (queue_.empty()) {
        if (look_ticket_ != 0) return std::nullopt;
        if (look_at_ms_ == 0) look_at_ms_ = now_ms + options_.look_ms;
        if (now_ms < look_at_ms_) return std::nullopt;
        if (!vouched) {
            look_at_ms_ = now_ms + options_.unvouched_ms;
            return std::nullopt;
        }
        look_ticket_ = next_ticket_++;
        looked_from_ = stored_;
        return Look{look_ticket_, grant_->epoch};
    }
    look_at_ms_ = 0;
    // While the server is in trouble one request is enough to see whether it still is.
    const size_t uploads_max = failures_ > 0 ? 1 : options_.uploads_max;
    if (sending() >= uploads_max) return std::nullopt;
    const size_t window = std::max<size_t>(1, grant_->window_segments);
    for (size_t i = 0; i < std::min(window, queue_.size()); ++i) {
        Queued& queued = queue_[i];
        // Delivered out of order, and everything before it is stored: the server has lost it.
        const bool lost = queued.phase == Phase::delivered && i == 0;
        if (queued.phase != Phase::waiting && !lost) continue;
        queued.phase = Phase::sending;
        queued.ticket = next_ticket_++;
        queued.sent_as_head = i == 0;
        return Send{queued.ticket, grant_->epoch, queued.segment};
    }
    return std::nullopt;
}

std::optional<uint64_t> Session::wake_ms() const {
    if (ended_) return std::nullopt;
    uint64_t at = not_before_ms_;
    if (queue_.empty() && look_ticket_ == 0) at = std::max(at, look_at_ms_);
    if (at == 0) return std::nullopt;
    return at;
}

void Session::succeed() {
    failures_ = 0;
    not_before_ms_ = 0;
    trouble_.reset();
}

void Session::lost_positions(uint64_t stored, uint64_t expected) {
    end({FailureKind::diverged,
         fmt::format("the server lost positions that it had acknowledged: it ends at {}, not {}",
                     stored, expected),
         0});
}

bool Session::is_ours(const wire::SegmentAck& ack) const {
    if (ack.stored == stored_) return ack.head_segment == stored_segment_;
    return std::any_of(queue_.begin(), queue_.end(), [&](const Queued& queued) {
        return queued.segment->last_position == ack.stored &&
               queued.segment->header.segment == ack.head_segment;
    });
}

void Session::granted(uint64_t ticket, const wire::SessionGrant& grant) {
    if (ended_ || ticket != ask_ticket_) return;
    ask_ticket_ = 0;
    succeed();
    grant_ = grant;
    received_ = stored_ = grant.head;
    stored_segment_ = grant.head_segment;
}

void Session::add(SegmentPtr segment) {
    if (ended_) return;
    HERALD_ASSERT(queue_.empty() ||
                  queue_.back().segment->last_position + 1 == segment->header.first_position);
    unstored_bytes_ += segment->bytes.size();
    queue_.push_back({std::move(segment)});
}

void Session::acked(uint64_t ticket, const wire::SegmentAck& ack) {
    if (ended_) return;
    succeed();
    for (Queued& queued : queue_) {
        if (queued.ticket == ticket && queued.phase == Phase::sending) {
            queued.phase = Phase::delivered;
            // Everything before it was stored when it was sent. Without this a server whose
            // catalog went back would keep it for later, for ever.
            const uint64_t before = queued.segment->header.first_position - 1;
            if (queued.sent_as_head && ack.stored < before) {
                return lost_positions(ack.stored, before);
            }
        }
    }
    if (ticket == look_ticket_) {
        look_ticket_ = look_at_ms_ = 0;
        if (ack.stored < looked_from_) return lost_positions(ack.stored, looked_from_);
    }
    // A late answer takes nothing back.
    if (ack.stored >= stored_) {
        if (!is_ours(ack)) {
            end({FailureKind::diverged,
                 fmt::format("the server ends at position {} with a segment that was not sent from "
                             "here: a clone of this machine has the same session",
                             ack.stored),
                 0});
            return;
        }
        stored_ = ack.stored;
        stored_segment_ = ack.head_segment;
    }
    // An answer cannot acknowledge what was never sent.
    const uint64_t sent = queue_.empty() ? stored_ : queue_.back().segment->last_position;
    received_ = std::max({received_, stored_, std::min(ack.received, sent)});
    while (!queue_.empty() && queue_.front().segment->last_position <= stored_) {
        unstored_bytes_ -= queue_.front().segment->bytes.size();
        queue_.pop_front();
    }
}

void Session::failed(uint64_t ticket, const Failure& failure, uint64_t now_ms, double random) {
    if (ended_) return;
    const auto back_off = [&](uint64_t at_least_ms) {
        failures_ = std::min(failures_ + 1, 32u);
        const uint64_t ceiling = std::min(options_.backoff_ms_max,
                                          options_.backoff_ms_min << std::min(failures_ - 1, 16u));
        // Half fixed, half random: many agents of one server do not come back in step.
        const uint64_t wait = ceiling / 2 + uint64_t(double(ceiling) / 2 * random);
        not_before_ms_ = std::max(not_before_ms_, now_ms + std::max(wait, at_least_ms));
        if (!trouble_) trouble_since_ms_ = now_ms;
        trouble_ = failure;
    };

    Queued* queued = nullptr;
    if (ticket == ask_ticket_) {
        ask_ticket_ = 0;
    } else if (ticket == look_ticket_) {
        look_ticket_ = 0;
    } else {
        for (Queued& q : queue_) {
            if (q.ticket == ticket && q.phase == Phase::sending) queued = &q;
        }
        if (queued) queued->phase = Phase::waiting;
    }

    switch (failure.kind) {
        case FailureKind::fenced:
        case FailureKind::diverged:
            end(failure);
            return;
        case FailureKind::ahead:
            // The head itself cannot be ahead of what we were told is stored.
            if (queued && queued->sent_as_head) {
                end({FailureKind::diverged,
                     "the server lost positions that it had acknowledged: " + failure.message, 0});
                return;
            }
            // Once the segments before it are stored it fits; asking at once would only spin.
            if (!queued || queued != &queue_.front()) back_off(failure.retry_after_ms);
            return;
        case FailureKind::corrupt:
            if (queued && ++queued->corrupt >= options_.corrupt_max) {
                end(failure);
                return;
            }
            back_off(0);
            return;
        case FailureKind::refused:
            back_off(options_.refused_ms);
            return;
        case FailureKind::unreachable:
        case FailureKind::busy:
        case FailureKind::full:
            back_off(failure.retry_after_ms);
            return;
    }
}

void Session::end(const Failure& cause) {
    ended_ = cause;
    queue_.clear();
    unstored_bytes_ = 0;
}

}  // namespace herald::replicator
