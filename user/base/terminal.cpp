// SPDX-License-Identifier: Apache-2.0
#include "user/base/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>

#include "user/base/result.h"

namespace herald {
namespace {

// Rates are over this much history: long enough to be calm, short enough to show a stall.
constexpr auto kWindow = std::chrono::seconds(5);
constexpr auto kSampleEvery = std::chrono::milliseconds(100);
constexpr size_t kSamplesMax = 64;
constexpr auto kRedrawTerminal = std::chrono::milliseconds(100);
constexpr auto kRedrawLog = std::chrono::seconds(2);
constexpr unsigned kBarMin = 10;
constexpr unsigned kBarMax = 40;

}  // namespace

std::string human_bytes(uint64_t bytes) {
    if (bytes < 1024) return fmt::format("{} B", bytes);
    static constexpr const char* kUnits[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = double(bytes) / 1024.0;
    size_t unit = 0;
    // 1023.95 would print as 1024.0: it belongs to the next unit.
    while (value >= 1023.95 && unit + 1 < std::size(kUnits)) {
        value /= 1024.0;
        ++unit;
    }
    return fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::string human_duration(std::chrono::nanoseconds duration) {
    const bool negative = duration.count() < 0;
    const uint64_t ns = negative ? 0 - uint64_t(duration.count()) : uint64_t(duration.count());
    const uint64_t seconds = ns / 1'000'000'000;
    std::string text;
    if (ns < 1'000'000) {
        text = fmt::format("{} us", ns / 1000);
    } else if (ns < 999'950'000) {
        text = fmt::format("{:.1f} ms", double(ns) / 1e6);
    } else if (ns < 59'950'000'000) {
        text = fmt::format("{:.1f} s", double(ns) / 1e9);
    } else if (seconds < 3600) {
        const uint64_t rounded = std::max<uint64_t>(seconds, 60);
        text = fmt::format("{} min {:02} s", rounded / 60, rounded % 60);
    } else if (seconds < 86400) {
        text = fmt::format("{} h {:02} min", seconds / 3600, seconds % 3600 / 60);
    } else {
        text = fmt::format("{} d {:02} h", seconds / 86400, seconds % 86400 / 3600);
    }
    return negative ? "-" + text : text;
}

bool is_terminal(std::FILE* stream) { return ::isatty(::fileno(stream)) == 1; }

unsigned terminal_columns(std::FILE* stream) {
    winsize size{};
    if (::ioctl(::fileno(stream), TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
    return size.ws_col;
}

Progress::Progress(std::string label, uint64_t total_bytes, std::FILE* to)
    : label_(std::move(label)),
      total_(total_bytes),
      to_(to),
      terminal_(is_terminal(to)),
      started_(Clock::now()) {
    samples_.emplace_back(started_, 0);
}

Progress::~Progress() { finish(); }

void Progress::record(uint64_t done_bytes, Clock::time_point now) {
    done_ = done_bytes;
    // A start from a resumed position, or a total that shrank, is not a rate.
    if (samples_.empty() || done_bytes < samples_.back().second) {
        samples_.clear();
        samples_.emplace_back(now, done_bytes);
        return;
    }
    if (samples_.size() > 1 && now - samples_[samples_.size() - 2].first < kSampleEvery) {
        samples_.back() = {now, done_bytes};
    } else {
        samples_.emplace_back(now, done_bytes);
    }
    while (samples_.size() > 2 &&
           (now - samples_[1].first >= kWindow || samples_.size() > kSamplesMax)) {
        samples_.pop_front();
    }
}

double Progress::rate() const {
    if (samples_.size() < 2) return 0;
    const auto& [first_at, first] = samples_.front();
    const auto& [last_at, last] = samples_.back();
    const double seconds = std::chrono::duration<double>(last_at - first_at).count();
    return seconds <= 0 ? 0 : double(last - first) / seconds;
}

void Progress::update(uint64_t done_bytes) {
    if (finished_) return;
    const auto now = Clock::now();
    record(done_bytes, now);
    const Clock::duration every = terminal_ ? Clock::duration(kRedrawTerminal) : kRedrawLog;
    if (drawn_ && now - drawn_at_ < every) return;
    draw(now, false);
}

void Progress::finish() {
    if (finished_) return;
    finished_ = true;
    draw(Clock::now(), true);
}

std::string Progress::line(Clock::time_point now, unsigned columns) const {
    const uint64_t total = std::max(total_, done_);
    const double share = total == 0 ? 1.0 : double(done_) / double(total);
    std::string right =
        fmt::format(" {:3.0f} %  {} of {}", share * 100, human_bytes(done_), human_bytes(total));
    // While running the rate is of the last seconds; at the end it is of the whole.
    const double seconds = std::chrono::duration<double>(now - started_).count();
    const double per_second = finished_ && seconds > 0 ? double(done_) / seconds : rate();
    right += fmt::format("  {}/s", human_bytes(uint64_t(per_second)));
    if (finished_) {
        right += fmt::format("  in {}", human_duration(now - started_));
    } else if (per_second >= 1 && done_ < total) {
        const double left = double(total - done_) / per_second;
        // Beyond a year the number means nothing.
        if (left < 1) {
            right += "  less than 1 s left";
        } else if (left < 365.0 * 86400) {
            right += fmt::format("  {} left", human_duration(std::chrono::seconds(int64_t(left))));
        }
    }
    // One column stays free: some terminals wrap when the last one is written.
    const size_t used = label_.size() + 3 + right.size() + 1;
    if (columns < used + kBarMin) return fmt::format("{} {}", label_, right);
    const unsigned width = std::min(kBarMax, columns - unsigned(used));
    const auto filled = std::min(width, unsigned(share * width));
    return fmt::format("{} [{}{}]{}", label_, std::string(filled, '#'),
                       std::string(width - filled, '.'), right);
}

void Progress::draw(Clock::time_point now, bool last) {
    drawn_ = true;
    drawn_at_ = now;
    if (terminal_) {
        // Back to the first column, the line, and clear what an older, longer one left.
        fmt::print(to_, "\r{}\x1b[K{}", line(now, terminal_columns(to_)), last ? "\n" : "");
    } else {
        fmt::print(to_, "{}\n", line(now, 80));
    }
    std::fflush(to_);
}

Table::Table(std::vector<std::string> header) : header_(std::move(header)) {
    for (std::string& cell : header_) {
        right_.push_back(!cell.empty() && cell[0] == '>');
        if (right_.back()) cell.erase(0, 1);
    }
}

void Table::add(std::vector<std::string> row) {
    HERALD_ASSERT(row.size() <= header_.size());
    row.resize(header_.size());
    rows_.push_back(std::move(row));
}

std::string Table::text() const {
    std::vector<size_t> widths;
    for (const std::string& cell : header_) widths.push_back(cell.size());
    for (const auto& row : rows_) {
        for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
    }
    std::string out;
    const auto append = [&](const std::vector<std::string>& row) {
        std::string line;
        for (size_t i = 0; i < row.size(); ++i) {
            if (i > 0) line += "  ";
            const std::string pad(widths[i] - row[i].size(), ' ');
            line += right_[i] ? pad + row[i] : row[i] + pad;
        }
        line.erase(line.find_last_not_of(' ') + 1);
        out += line + "\n";
    };
    append(header_);
    for (const auto& row : rows_) append(row);
    return out;
}

void Table::print(std::FILE* to) const {
    const std::string all = text();
    std::fwrite(all.data(), 1, all.size(), to);
}

}  // namespace herald
