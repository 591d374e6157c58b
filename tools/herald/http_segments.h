// SPDX-License-Identifier: Apache-2.0
// HttpSegments gives a restore its segments from a process server, a few downloads ahead.
// Promise: at most kAheadSegments segments and kAheadBytes are held or under way at once.
// A passing failure (a server that restarts) is tried again for about a minute.
// Callers: as SegmentProvider says: one call at a time. Borrows the client.
// Failure: the client's; corruption is for restore() to find.
#pragma once

#include <deque>
#include <functional>

#include "tools/herald/api_client.h"
#include "user/vault/restore.h"

namespace herald::cli {

class HttpSegments : public vault::SegmentProvider {
  public:
    // Nothing that begins after last_position is downloaded ahead. `notice` (may be null) is told
    // what is being waited for.
    HttpSegments(ApiClient& client, uint64_t last_position,
                 std::function<void(const std::string&)> notice);

    Result<std::vector<wire::SegmentInfo>> segments(const Uuid& disk, uint64_t after,
                                                    size_t limit) override;
    Result<Bytes> fetch(const Uuid& disk, const wire::SegmentInfo& segment) override;

  private:
    struct Ahead {
        wire::SegmentInfo segment;
        Download download;
    };
    void start_ahead(const Uuid& disk);
    // Waits before attempt number `attempt`; false when there have been enough.
    Result<bool> pause(unsigned attempt, const Error& error);

    ApiClient& client_;
    uint64_t last_position_;
    std::function<void(const std::string&)> notice_;
    std::deque<wire::SegmentInfo> known_;  // listed, not yet started
    std::deque<Ahead> ahead_;
};

}  // namespace herald::cli
