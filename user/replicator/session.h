// SPDX-License-Identifier: Apache-2.0
// Session is one replicator session with the server: it asks for the right to extend the stream,
// then sends segments, several at a time inside the server's window, and repeats what did not
// arrive, with exponential back-off and jitter.
// A session that has nothing to send looks at intervals whether the server still knows it.
// Promise: a segment is let go of only when the server says it is stored; after the session ended
// nothing is sent any more (fenced); stored() never goes back.
// Callers: one at a time (the shell holds a lock). Sans I/O: time and randomness are passed in.
// Owns: the segments not yet stored; the caller bounds their number by unstored_bytes().
// Failure: passing trouble shows in trouble() and is retried for ever; what ends a session is
// named.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <variant>

#include "herald/limits.h"
#include "user/replicator/segment_builder.h"
#include "user/wire/message_structs.h"

namespace herald::replicator {

// What came of a request that was not granted or acknowledged.
enum class FailureKind {
    unreachable,  // no answer
    busy,         // the server asks to slow down
    full,         // the server has no space
    ahead,        // beyond the window
    refused,      // certificate, role or request: an operator must change something
    corrupt,      // the body did not arrive as it was sent
    fenced,       // a newer session exists
    diverged,     // these positions hold other records
};

struct Failure {
    FailureKind kind = FailureKind::unreachable;
    std::string message;
    uint64_t retry_after_ms = 0;
};

// Maps an answer that is not 2xx.
Failure failure_of(unsigned status, const wire::ErrorBody& body);
const char* to_string(FailureKind kind);

struct SessionOptions {
    unsigned uploads_max = HERALD_UPLOADS_PER_DISK;
    uint64_t backoff_ms_min = 200;
    uint64_t backoff_ms_max = 15'000;
    // Nothing that an operator must change is asked for more often.
    uint64_t refused_ms = 15'000;
    // A body that arrives damaged this often in a row is damaged here.
    unsigned corrupt_max = 4;
    // An idle disk's session looks this often whether it still is the server's: otherwise nobody
    // would learn that it was superseded or that the server was restored from a backup.
    uint64_t look_ms = wire::kLookEverySeconds * 1000;
    // Not vouched for when it was time to look: asked for again after this.
    uint64_t unvouched_ms = 1000;
};

class Session {
  public:
    Session(SessionOptions options, const Uuid& id);

    struct Ask {
        uint64_t ticket = 0;
    };
    struct Send {
        uint64_t ticket = 0;
        uint64_t epoch = 0;
        SegmentPtr segment;
    };
    // Nothing was sent for a while: what does the server end with, and is this its session?
    struct Look {
        uint64_t ticket = 0;
        uint64_t epoch = 0;
    };
    using Action = std::variant<Ask, Send, Look>;
    // The next request to make now. Call until nothing; each ticket is answered exactly once.
    // vouched: somebody looks after this disk. Without it nothing is sent that has the server
    // believe so: an idle disk that nobody protects is to turn silent there.
    std::optional<Action> next(uint64_t now_ms, bool vouched = true);
    // When next() may have something that it does not have now, unless an event comes first.
    std::optional<uint64_t> wake_ms() const;

    void granted(uint64_t ticket, const wire::SessionGrant& grant);
    void acked(uint64_t ticket, const wire::SegmentAck& ack);
    // random: uniform in [0, 1).
    void failed(uint64_t ticket, const Failure& failure, uint64_t now_ms, double random);
    // Segments in order of position. Ignored once the session ended.
    void add(SegmentPtr segment);
    // Ends the session from our side.
    void end(const Failure& cause);

    const Uuid& id() const { return id_; }
    const std::optional<wire::SessionGrant>& grant() const { return grant_; }
    uint64_t received() const { return received_; }
    uint64_t stored() const { return stored_; }
    uint64_t unstored_bytes() const { return unstored_bytes_; }
    size_t unstored_segments() const { return queue_.size(); }
    // Why the session ended; nothing while it lives.
    const std::optional<Failure>& ended() const { return ended_; }
    // The newest failure since the last success; nothing when all is well.
    const std::optional<Failure>& trouble() const { return trouble_; }
    uint64_t trouble_since_ms() const { return trouble_since_ms_; }

  private:
    enum class Phase { waiting, sending, delivered };
    struct Queued {
        SegmentPtr segment;
        Phase phase = Phase::waiting;
        uint64_t ticket = 0;
        bool sent_as_head = false;
        unsigned corrupt = 0;
    };
    size_t sending() const;
    void succeed();
    void lost_positions(uint64_t stored, uint64_t expected);
    // The acknowledgement names a segment of ours as the server's newest.
    bool is_ours(const wire::SegmentAck& ack) const;

    SessionOptions options_;
    Uuid id_;
    std::optional<wire::SessionGrant> grant_;
    uint64_t next_ticket_ = 1;
    uint64_t ask_ticket_ = 0;  // 0: none under way
    std::deque<Queued> queue_;
    uint64_t unstored_bytes_ = 0;
    uint64_t received_ = 0;
    uint64_t stored_ = 0;
    Uuid stored_segment_;       // ends at stored_
    uint64_t look_ticket_ = 0;  // 0: none under way
    uint64_t look_at_ms_ = 0;   // 0: not idle
    uint64_t looked_from_ = 0;  // stored() when it looked
    unsigned failures_ = 0;     // in a row
    uint64_t not_before_ms_ = 0;
    uint64_t trouble_since_ms_ = 0;
    std::optional<Failure> trouble_;
    std::optional<Failure> ended_;
};

}  // namespace herald::replicator
