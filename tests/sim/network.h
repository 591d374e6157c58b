// SPDX-License-Identifier: Apache-2.0
// Network carries requests and answers: late, twice, out of order, not at all, or damaged.
// A damaged request is a flipped bit or a cut in a segment's body; a damaged answer is cut.
// Callers: one thread.
#pragma once

#include <optional>
#include <vector>

#include "tests/sim/random.h"
#include "user/wire/http_server.h"

namespace herald::sim {

// The ticket of a request for digests; sessions count theirs from 1.
constexpr uint64_t kDigestTicket = UINT64_MAX;

struct Request {
    uint64_t life = 0;  // whose, and which ticket of it
    uint64_t ticket = 0;
    wire::RequestHead head;
    Bytes body;
    bool damaged = false;
};

struct Answer {
    uint64_t life = 0;
    uint64_t ticket = 0;
    std::optional<wire::HttpResponse> response;  // nothing: the connection broke
};

struct NetworkFaults {
    double loss = 0;
    double twice = 0;
    double damage = 0;
    double very_late = 0;
};

class Network {
  public:
    explicit Network(Random& random) : random_(random) {}
    NetworkFaults faults;

    void send(Request request, uint64_t now_ms);
    void send(Answer answer, uint64_t now_ms);
    // Any one of those that are due; nothing when none is.
    std::optional<Request> take_request(uint64_t now_ms) { return take(requests_, now_ms); }
    std::optional<Answer> take_answer(uint64_t now_ms) { return take(answers_, now_ms); }
    bool empty() const { return requests_.empty() && answers_.empty(); }

  private:
    template <class T>
    struct UnderWay {
        uint64_t due_ms;
        T message;
    };
    template <class T>
    std::optional<T> take(std::vector<UnderWay<T>>& queue, uint64_t now_ms);
    template <class T>
    void put(std::vector<UnderWay<T>>& queue, T message, uint64_t now_ms);

    Random& random_;
    std::vector<UnderWay<Request>> requests_;
    std::vector<UnderWay<Answer>> answers_;
};

}  // namespace herald::sim
