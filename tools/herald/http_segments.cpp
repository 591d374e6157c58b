// SPDX-License-Identifier: Apache-2.0
#include "tools/herald/http_segments.h"

#include <thread>

#include "herald/limits.h"
#include "tools/herald/interrupt.h"

namespace herald::cli {

namespace {

// Four in flight keep a link with 50 ms of delay busy at 8 MiB each.
constexpr size_t kAheadSegments = 4;
constexpr uint64_t kAheadBytes = 64u << 20;
// 1 + 2 + 4 + 8 + 16 + 30 s: a server that is being restarted or upgraded comes back within.
constexpr unsigned kAttempts = 7;
constexpr std::chrono::seconds kPauseMax{30};

}  // namespace

HttpSegments::HttpSegments(ApiClient& client, uint64_t last_position,
                           std::function<void(const std::string&)> notice)
    : client_(client), last_position_(last_position), notice_(std::move(notice)) {}

Result<bool> HttpSegments::pause(unsigned attempt, const Error& error) {
    if (error.kind != ErrorKind::retry || attempt >= kAttempts) return false;
    const auto length = std::min(std::chrono::seconds(1 << (attempt - 1)), kPauseMax);
    if (notice_) notice_(fmt::format("{}; trying again in {} s", error.message, length.count()));
    const auto until = std::chrono::steady_clock::now() + length;
    while (std::chrono::steady_clock::now() < until) {
        if (auto r = check_interrupt(); !r) return pass(r);
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    return true;
}

Result<std::vector<wire::SegmentInfo>> HttpSegments::segments(const Uuid& disk, uint64_t after,
                                                              size_t limit) {
    for (unsigned attempt = 1;; ++attempt) {
        auto list = client_.segments(disk, after, limit);
        if (list) {
            // What is listed again is not downloaded twice.
            const uint64_t newest = !known_.empty()   ? known_.back().first_position
                                    : !ahead_.empty() ? ahead_.back().segment.first_position
                                                      : 0;
            for (const auto& segment : *list)
                if (segment.first_position > newest && segment.first_position <= last_position_ &&
                    segment.bytes <= HERALD_SEGMENT_BYTES_MAX)
                    known_.push_back(segment);
            return list;
        }
        auto again = pause(attempt, list.error());
        if (!again) return pass(again);
        if (!*again) return pass(list);
    }
}

void HttpSegments::start_ahead(const Uuid& disk) {
    uint64_t bytes = 0;
    for (const auto& ahead : ahead_) bytes += ahead.segment.bytes;
    while (!known_.empty() && ahead_.size() < kAheadSegments &&
           bytes + known_.front().bytes <= kAheadBytes) {
        bytes += known_.front().bytes;
        ahead_.push_back({known_.front(), client_.start_segment(disk, known_.front())});
        known_.pop_front();
    }
}

Result<Bytes> HttpSegments::fetch(const Uuid& disk, const wire::SegmentInfo& segment) {
    if (segment.bytes > HERALD_SEGMENT_BYTES_MAX)
        return fail(ErrorKind::corrupt,
                    "segment {}: the server lists it with {} bytes; {} is the "
                    "most there can be",
                    to_string(segment.segment), segment.bytes, HERALD_SEGMENT_BYTES_MAX);
    // Segments are asked for in order; whatever lies before this one is not wanted any more.
    const auto before = [&](const wire::SegmentInfo& other) {
        return other.first_position < segment.first_position;
    };
    while (!known_.empty() && before(known_.front())) known_.pop_front();
    while (!ahead_.empty() && before(ahead_.front().segment)) ahead_.pop_front();
    start_ahead(disk);
    for (unsigned attempt = 1;; ++attempt) {
        Result<Bytes> bytes;
        if (!ahead_.empty() && ahead_.front().segment.first_position == segment.first_position) {
            Download download = std::move(ahead_.front().download);
            ahead_.pop_front();
            bytes = download.wait();
        } else {
            bytes = client_.start_segment(disk, segment).wait();
        }
        if (bytes) return bytes;
        auto again = pause(attempt, bytes.error());
        if (!again) return pass(again);
        if (!*again) return bytes;
    }
}

}  // namespace herald::cli
