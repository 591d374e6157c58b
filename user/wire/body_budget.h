// SPDX-License-Identifier: Apache-2.0
// BodyBudget bounds the request bodies in memory at once. A request waits its turn, in order of
// arrival, and gives up after a while. One peer gets at most half of it while it holds some, so
// that a peer that uploads slowly on many connections leaves room for the others.
// Callers: coroutines of one io_context. Owns: the count; a Share gives its bytes back.
#pragma once

#include <utility>  // before Asio 1.74, which forgets it

#include <boost/asio/awaitable.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <list>
#include <map>
#include <optional>
#include <string>

namespace herald::wire {

class BodyBudget {
  public:
    explicit BodyBudget(size_t bytes) : total_(bytes), free_(bytes) {}

    class Share {
      public:
        Share(BodyBudget& from, std::string peer, size_t bytes)
            : from_(&from), peer_(std::move(peer)), bytes_(bytes) {}
        Share(Share&& other) noexcept
            : from_(std::exchange(other.from_, nullptr)),
              peer_(std::move(other.peer_)),
              bytes_(other.bytes_) {}
        Share& operator=(Share&&) = delete;
        ~Share() {
            if (from_) from_->give_back(peer_, bytes_);
        }

      private:
        BodyBudget* from_;
        std::string peer_;
        size_t bytes_;
    };

    size_t total() const { return total_; }

    // Nothing: not within `patience`.
    boost::asio::awaitable<std::optional<Share>> take(std::string peer, size_t bytes,
                                                      std::chrono::milliseconds patience) {
        if (bytes > total_) co_return std::nullopt;
        auto executor = co_await boost::asio::this_coro::executor;
        waiting_.emplace_back(executor, std::move(peer), bytes);
        const auto place = std::prev(waiting_.end());
        grant();
        if (!place->granted) {
            boost::system::error_code ignored;
            place->timer.expires_after(patience);
            co_await place->timer.async_wait(
                boost::asio::redirect_error(boost::asio::use_awaitable, ignored));
        }
        std::optional<Share> share;
        if (place->granted) share.emplace(*this, place->peer, bytes);
        waiting_.erase(place);
        if (!share) grant();  // whoever stood behind may fit
        co_return share;
    }

  private:
    struct Waiter {
        template <class Executor>
        Waiter(const Executor& executor, std::string who, size_t how_much)
            : timer(executor), peer(std::move(who)), bytes(how_much) {}
        boost::asio::steady_timer timer;
        std::string peer;
        size_t bytes;
        bool granted = false;
    };

    void grant() {
        for (Waiter& waiter : waiting_) {
            if (waiter.granted) continue;
            const auto held = held_.find(waiter.peer);
            if (held != held_.end() && held->second + waiter.bytes > total_ / 2) continue;
            if (waiter.bytes > free_) break;  // the first in line is not overtaken
            free_ -= waiter.bytes;
            held_[waiter.peer] += waiter.bytes;
            waiter.granted = true;
            waiter.timer.cancel();
        }
    }

    void give_back(const std::string& peer, size_t bytes) {
        free_ += bytes;
        const auto held = held_.find(peer);
        held->second -= bytes;
        if (held->second == 0) held_.erase(held);
        grant();
    }

    const size_t total_;
    size_t free_;
    std::map<std::string, size_t> held_;
    std::list<Waiter> waiting_;
};

}  // namespace herald::wire
