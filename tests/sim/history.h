// SPDX-License-Identifier: Apache-2.0
// History is every write to one disk, and says what a power cut at some moment could have left: of
// each cell the content of a write submitted by then, none older than one that was certain by then.
// A moment is the driver's time, as the records of an ordered stream carry it. What has a slot is
// certain from its slot on: the stream has it there. What has none, from its completion on; what
// failed, never.
// Callers: one thread. A copy of a machine has a history of its own from there on.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

namespace herald::sim {

class History {
  public:
    static constexpr uint64_t kNever = std::numeric_limits<uint64_t>::max();

    explicit History(const std::vector<uint64_t>& cells) : cells_(cells.size()) {
        for (size_t cell = 0; cell < cells.size(); ++cell)
            cells_[cell].push_back({0, cells[cell], 0});
    }

    void wrote(uint64_t cell, uint64_t version, uint64_t time, uint64_t certain_from) {
        cells_[cell].push_back({time, version, certain_from});
    }
    // Of the write that was submitted then.
    void certain(uint64_t cell, uint64_t time, uint64_t from) {
        for (auto entry = cells_[cell].rbegin(); entry != cells_[cell].rend(); ++entry) {
            if (entry->time != time) continue;
            entry->certain_from = from;
            return;
        }
    }
    bool allows(uint64_t cell, uint64_t version, uint64_t moment) const {
        for (auto entry = cells_[cell].rbegin(); entry != cells_[cell].rend(); ++entry) {
            if (entry->time > moment) continue;
            if (entry->version == version) return true;
            if (entry->certain_from <= moment) return false;
        }
        return false;
    }

    // The newest writes of a cell, for the report of a violation.
    std::string describe(uint64_t cell) const {
        std::string text;
        const auto& entries = cells_[cell];
        for (size_t i = entries.size() - std::min<size_t>(entries.size(), 6); i < entries.size();
             ++i) {
            text += fmt::format(" {} at {} certain from {}{}", entries[i].version, entries[i].time,
                                entries[i].certain_from, i + 1 < entries.size() ? ";" : "");
        }
        return text;
    }

  private:
    struct Entry {
        uint64_t time;
        uint64_t version;
        uint64_t certain_from;
    };
    std::vector<std::vector<Entry>> cells_;  // in order of time
};

// A value: the copy goes on by itself, and what was handed out of the old one stays.
class OwnHistory {
  public:
    explicit OwnHistory(std::shared_ptr<History> history) : history_(std::move(history)) {}
    OwnHistory(const OwnHistory& other) { *this = other; }
    OwnHistory& operator=(const OwnHistory& other) {
        if (this != &other) {
            history_ = other.history_ ? std::make_shared<History>(*other.history_) : nullptr;
        }
        return *this;
    }
    History* operator->() const { return history_.get(); }
    std::shared_ptr<const History> shared() const { return history_; }

  private:
    std::shared_ptr<History> history_;
};

}  // namespace herald::sim
