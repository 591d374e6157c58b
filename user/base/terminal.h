// SPDX-License-Identifier: Apache-2.0
// What programs show to a person: sizes, durations, a progress line, a table.
// Promise: on a terminal a progress line is redrawn in place; elsewhere it is a new line every
// two seconds at most, so that a log stays readable. Tables are aligned and plain ASCII.
// Callers: one thread for each object. Owns: nothing; FILE* stays the caller's.
// Failure: none; output errors are the stream's business.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <string>
#include <utility>
#include <vector>

namespace herald {

// "0 B", "999 B", "1.0 KiB", "64.0 KiB", "1.5 GiB".
std::string human_bytes(uint64_t bytes);
// "850 us", "12.3 ms", "4.2 s", "3 min 05 s", "2 h 07 min", "3 d 04 h". Negative times get a "-".
std::string human_duration(std::chrono::nanoseconds duration);
// Columns of the terminal behind `stream`; 80 where it is not one.
unsigned terminal_columns(std::FILE* stream);
bool is_terminal(std::FILE* stream);

// One line: label, bar, bytes of total, rate over the last seconds, time left.
class Progress {
  public:
    using Clock = std::chrono::steady_clock;

    Progress(std::string label, uint64_t total_bytes, std::FILE* to = stderr);
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;
    // As finish(), unless it was called.
    ~Progress();

    // May be called as often as convenient; draws at most ten times a second on a terminal.
    void update(uint64_t done_bytes);
    // The total may become known, or grow, on the way.
    void set_total(uint64_t total_bytes) { total_ = total_bytes; }
    // Draws the last state and ends the line.
    void finish();

    // The text of the line at a time: what update() draws.
    std::string line(Clock::time_point now, unsigned columns) const;
    // update() with the time given, without drawing.
    void record(uint64_t done_bytes, Clock::time_point now);
    // Bytes per second over the last seconds; 0 while nothing is known.
    double rate() const;

  private:
    void draw(Clock::time_point now, bool last);

    std::string label_;
    uint64_t total_;
    std::FILE* to_;
    bool terminal_;
    bool finished_ = false;
    bool drawn_ = false;
    uint64_t done_ = 0;
    Clock::time_point started_;
    Clock::time_point drawn_at_;
    std::deque<std::pair<Clock::time_point, uint64_t>> samples_;  // at most kSamplesMax
};

// Rows under a header, columns as wide as their widest cell. A column whose header starts with
// '>' is aligned to the right (the sign is not printed).
class Table {
  public:
    explicit Table(std::vector<std::string> header);
    // Missing cells are empty; more cells than columns is a bug.
    void add(std::vector<std::string> row);
    void print(std::FILE* to) const;
    std::string text() const;
    bool empty() const { return rows_.empty(); }

  private:
    std::vector<std::string> header_;
    std::vector<bool> right_;
    std::vector<std::vector<std::string>> rows_;
};

}  // namespace herald
