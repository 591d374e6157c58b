// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/network.h"

#include "herald/wire/protocol.h"
#include "user/base/digest.h"

namespace herald::sim {

template <class T>
std::optional<T> Network::take(std::vector<UnderWay<T>>& queue, uint64_t now_ms) {
    std::vector<size_t> due;
    for (size_t i = 0; i < queue.size(); ++i) {
        if (queue[i].due_ms <= now_ms) due.push_back(i);
    }
    if (due.empty()) return std::nullopt;
    const auto chosen = queue.begin() + std::ptrdiff_t(due[random_.below(due.size())]);
    T message = std::move(chosen->message);
    queue.erase(chosen);
    return message;
}

template <class T>
void Network::put(std::vector<UnderWay<T>>& queue, T message, uint64_t now_ms) {
    const uint64_t delay =
        random_.chance(faults.very_late) ? random_.below(60'000) : 1 + random_.below(60);
    queue.push_back({now_ms + delay, std::move(message)});
}

void Network::send(Request request, uint64_t now_ms) {
    if (random_.chance(faults.twice)) put(requests_, request, now_ms);
    if (random_.chance(faults.loss)) return;
    if (!request.body.empty() && request.head.method == "PUT" && random_.chance(faults.damage)) {
        request.damaged = true;
        const uint64_t at = random_.below(request.body.size());
        if (random_.chance(0.5)) {
            request.body.resize(at);
        } else {
            request.body[at] ^= std::byte(1u << random_.below(8));
        }
        // Damaged before its digest was taken: only the segment itself can tell.
        if (random_.chance(0.5)) {
            request.head.headers[wire::kHeaderDigest] = to_hex(xxh3_128(request.body).bytes);
        }
    }
    request.head.content_bytes = request.body.size();
    put(requests_, std::move(request), now_ms);
}

void Network::send(Answer answer, uint64_t now_ms) {
    if (random_.chance(faults.twice)) put(answers_, answer, now_ms);
    if (random_.chance(faults.loss)) return;
    if (answer.response && !answer.response->body.empty() && random_.chance(faults.damage)) {
        answer.response->body.resize(random_.below(answer.response->body.size()));
    }
    put(answers_, std::move(answer), now_ms);
}

template std::optional<Request> Network::take(std::vector<UnderWay<Request>>&, uint64_t);
template std::optional<Answer> Network::take(std::vector<UnderWay<Answer>>&, uint64_t);

}  // namespace herald::sim
