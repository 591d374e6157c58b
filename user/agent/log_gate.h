// SPDX-License-Identifier: Apache-2.0
// LogGate: a log sink that holds messages in memory while filesystems are frozen, so that our own
// log line cannot block on the disk we froze, and lets them go afterwards in order.
// Promise: while closed nothing reaches the sink behind it; when more than
// HERALD_LOG_GATE_MESSAGES_MAX are held the newest are dropped and their number is logged at
// opening. Callers: any thread (spdlog's sink lock). Owns: what it holds. Usage: auto gate =
// std::make_shared<LogGate>(real_sink); logger over gate; then
//   LogGate::Closed closed(*gate);  // from before the freeze until after the thaw
#pragma once

#include <spdlog/details/log_msg_buffer.h>
#include <spdlog/sinks/base_sink.h>

#include <deque>
#include <memory>
#include <mutex>

namespace herald::agent {

class LogGate : public spdlog::sinks::base_sink<std::mutex> {
  public:
    explicit LogGate(spdlog::sink_ptr behind);

    // Nest: the gate opens when as many opens as closes have happened.
    void close();
    void open();

    class Closed {
      public:
        explicit Closed(LogGate& gate) : gate_(gate) { gate_.close(); }
        Closed(const Closed&) = delete;
        Closed& operator=(const Closed&) = delete;
        ~Closed() { gate_.open(); }

      private:
        LogGate& gate_;
    };

  protected:
    void sink_it_(const spdlog::details::log_msg& message) override;
    void flush_() override;
    void set_pattern_(const std::string& pattern) override;
    void set_formatter_(std::unique_ptr<spdlog::formatter> formatter) override;

  private:
    spdlog::sink_ptr behind_;
    unsigned closes_ = 0;
    uint64_t dropped_ = 0;
    std::deque<spdlog::details::log_msg_buffer> held_;
};

}  // namespace herald::agent
