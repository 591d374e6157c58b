// SPDX-License-Identifier: Apache-2.0
// LogGate: a log sink that holds messages in memory while filesystems are frozen, so that our own
// log line cannot block on the disk we froze, and lets them go afterwards in order.
// Promise: while closed nothing reaches the sink behind it; when more than
// HERALD_LOG_GATE_MESSAGES_MAX are held the newest are dropped and their number is logged at
// opening; whoever hangs while it is closed does not mute the log for longer than they said.
// Callers: any thread (spdlog's sink lock). Owns: what it holds. Usage: auto gate =
// std::make_shared<LogGate>(real_sink); logger over gate; then
//   LogGate::Closed closed(*gate, 12s);  // from before the freeze until after the thaw
#pragma once

#include <spdlog/details/log_msg_buffer.h>
#include <spdlog/sinks/base_sink.h>

#include <chrono>
#include <deque>
#include <list>
#include <memory>
#include <mutex>

namespace herald::agent {

class LogGate : public spdlog::sinks::base_sink<std::mutex> {
  public:
    explicit LogGate(spdlog::sink_ptr behind);

    using Clock = std::chrono::steady_clock;

    // Nest: the gate is closed while one of them lives that is not over its time.
    class Closed {
      public:
        Closed(LogGate& gate, Clock::duration longest) : gate_(gate), place_(gate.close(longest)) {}
        Closed(const Closed&) = delete;
        Closed& operator=(const Closed&) = delete;
        ~Closed() { gate_.open(place_); }

      private:
        LogGate& gate_;
        std::list<Clock::time_point>::iterator place_;
    };
    // Whoever has it closed does not matter any more: before the end of the process.
    void open_for_good();

  protected:
    void sink_it_(const spdlog::details::log_msg& message) override;
    void flush_() override;
    void set_pattern_(const std::string& pattern) override;
    void set_formatter_(std::unique_ptr<spdlog::formatter> formatter) override;

  private:
    std::list<Clock::time_point>::iterator close(Clock::duration longest);
    void open(std::list<Clock::time_point>::iterator place);
    bool is_closed() const;
    void let_go();

    spdlog::sink_ptr behind_;
    std::list<Clock::time_point> closes_;  // when each is over
    bool for_good_ = false;
    uint64_t dropped_ = 0;
    std::deque<spdlog::details::log_msg_buffer> held_;
};

}  // namespace herald::agent
