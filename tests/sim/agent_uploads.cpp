// SPDX-License-Identifier: Apache-2.0
// The agent's dealings with the server: what the daemon's Uploader does.
#include "tests/sim/agent.h"
#include "user/wire/messages.h"

namespace herald::sim {

using namespace replicator;

void Agent::upload() {
    if (!session_) return;
    for (auto it = deadlines_.begin(); it != deadlines_.end();) {
        if (it->second > host_.now_ms) {
            ++it;
            continue;
        }
        session_->failed(it->first, {FailureKind::unreachable, "no answer", 0}, host_.now_ms,
                         host_.random.uniform());
        it = deadlines_.erase(it);
    }
    const auto action = session_->next(host_.now_ms);
    if (!action) return;
    Request request;
    request.life = life_;
    if (const auto* ask = std::get_if<Session::Ask>(&*action)) {
        request.ticket = ask->ticket;
        request.head.method = "POST";
        request.head.path = fmt::format("/v1/disks/{}/session", to_string(host_.disk));
        const std::string body = wire::encode(request_);
        const ByteView view = as_bytes(body);
        request.body.assign(view.begin(), view.end());
    } else if (const auto* look = std::get_if<Session::Look>(&*action)) {
        request.ticket = look->ticket;
        request.head.method = "GET";
        request.head.path = fmt::format("/v1/disks/{}/head", to_string(host_.disk));
        request.head.headers[wire::kHeaderEpoch] = std::to_string(look->epoch);
    } else {
        const auto& send = std::get<Session::Send>(*action);
        const hrl::Segment& segment = *send.segment;
        request.ticket = send.ticket;
        request.head.method = "PUT";
        request.head.path = fmt::format("/v1/disks/{}/segments/{}", to_string(host_.disk),
                                        segment.header.first_position);
        request.head.headers[wire::kHeaderEpoch] = std::to_string(send.epoch);
        request.head.headers[wire::kHeaderDigest] = to_hex(xxh3_128(segment.bytes).bytes);
        request.body = segment.bytes;
    }
    deadlines_[request.ticket] = host_.now_ms + kAnswerMsMax;
    host_.send(std::move(request));
}

void Agent::answered(const Answer& answer) {
    if (answer.life != life_ || !session_) return;
    const bool good = answer.response && answer.response->status / 100 == 2;
    if (answer.ticket == kDigestTicket) {
        digests_asked_at_ = 0;
        // Anything but all of them is asked for again.
        if (good && answer.response->body.size() == machine_.blocks() * sizeof(Digest128)) {
            digests_ = answer.response->body;
        }
        return;
    }
    // An answer after its deadline has no connection left to come through.
    const auto waiting = deadlines_.find(answer.ticket);
    if (waiting == deadlines_.end()) return;
    deadlines_.erase(waiting);
    const auto fail_with = [&](const Failure& failure) {
        session_->failed(answer.ticket, failure, host_.now_ms, host_.random.uniform());
    };
    if (!answer.response) return fail_with({FailureKind::unreachable, "connection refused", 0});
    if (!good) {
        return fail_with(failure_of(answer.response->status, wire::error_of(*answer.response)));
    }
    const auto text = as_text(answer.response->body);
    if (auto grant = wire::decode_session_grant(text); grant && !session_->grant()) {
        session_->granted(answer.ticket, *grant);
    } else if (auto ack = wire::decode_segment_ack(text); ack && session_->grant()) {
        session_->acked(answer.ticket, *ack);
    } else {
        fail_with({FailureKind::unreachable, "an unreadable answer", 0});
    }
}

}  // namespace herald::sim
