// SPDX-License-Identifier: Apache-2.0
#include "user/agent/log_gate.h"

#include "herald/limits.h"
#include "user/base/result.h"

namespace herald::agent {

LogGate::LogGate(spdlog::sink_ptr behind) : behind_(std::move(behind)) {}

void LogGate::close() {
    std::lock_guard<std::mutex> lock(mutex_);
    // What went before belongs on disk before the freeze, not in a buffer of the sink behind.
    if (closes_++ == 0) behind_->flush();
}

void LogGate::open() {
    std::lock_guard<std::mutex> lock(mutex_);
    HERALD_ASSERT(closes_ > 0);
    if (--closes_ > 0) return;
    for (const auto& message : held_) {
        if (behind_->should_log(message.level)) behind_->log(message);
    }
    held_.clear();
    if (dropped_ > 0) {
        const std::string text =
            fmt::format("{} log messages were dropped while filesystems were frozen", dropped_);
        behind_->log(spdlog::details::log_msg("log", spdlog::level::warn, text));
        dropped_ = 0;
    }
    behind_->flush();
}

void LogGate::sink_it_(const spdlog::details::log_msg& message) {
    if (closes_ == 0) {
        if (behind_->should_log(message.level)) behind_->log(message);
    } else if (held_.size() < HERALD_LOG_GATE_MESSAGES_MAX) {
        held_.emplace_back(message);
    } else {
        ++dropped_;
    }
}

void LogGate::flush_() {
    if (closes_ == 0) behind_->flush();
}

void LogGate::set_pattern_(const std::string& pattern) { behind_->set_pattern(pattern); }

void LogGate::set_formatter_(std::unique_ptr<spdlog::formatter> formatter) {
    behind_->set_formatter(std::move(formatter));
}

}  // namespace herald::agent
