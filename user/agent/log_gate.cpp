// SPDX-License-Identifier: Apache-2.0
#include "user/agent/log_gate.h"

#include <algorithm>

#include "herald/limits.h"

namespace herald::agent {

LogGate::LogGate(spdlog::sink_ptr behind) : behind_(std::move(behind)) {}

bool LogGate::is_closed() const {
    const auto now = Clock::now();
    return !for_good_ && std::any_of(closes_.begin(), closes_.end(),
                                     [&](Clock::time_point over_at) { return now < over_at; });
}

std::list<LogGate::Clock::time_point>::iterator LogGate::close(Clock::duration longest) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!is_closed()) let_go();
    // What went before belongs on disk before the freeze, not in a buffer of the sink behind.
    if (!is_closed()) behind_->flush();
    return closes_.insert(closes_.end(), Clock::now() + longest);
}

void LogGate::open(std::list<Clock::time_point>::iterator place) {
    std::lock_guard<std::mutex> lock(mutex_);
    closes_.erase(place);
    if (is_closed()) return;
    let_go();
    behind_->flush();
}

void LogGate::open_for_good() {
    std::lock_guard<std::mutex> lock(mutex_);
    for_good_ = true;
    let_go();
    behind_->flush();
}

void LogGate::let_go() {
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
}

void LogGate::sink_it_(const spdlog::details::log_msg& message) {
    if (!is_closed()) {
        let_go();
        if (behind_->should_log(message.level)) behind_->log(message);
    } else if (held_.size() < HERALD_LOG_GATE_MESSAGES_MAX) {
        held_.emplace_back(message);
    } else {
        ++dropped_;
    }
}

void LogGate::flush_() {
    if (!is_closed()) behind_->flush();
}

void LogGate::set_pattern_(const std::string& pattern) { behind_->set_pattern(pattern); }

void LogGate::set_formatter_(std::unique_ptr<spdlog::formatter> formatter) {
    behind_->set_formatter(std::move(formatter));
}

}  // namespace herald::agent
