// SPDX-License-Identifier: Apache-2.0
// KeptSegments remembers what the beginning of a stream is made of, for whoever reads it twice: a
// boundary is looked for before it is restored, and a live stream is one small segment a second, of
// which the asking costs more than the bytes.
// Promise: at most bytes_max are held; from the first segment that does not fit on, none is. What
// the server lists under another id than before is asked for anew.
// Callers: as SegmentProvider says: one call at a time. Borrows the providers.
// Failure: the provider's. Before read_from() nothing may be asked.
#pragma once

#include <deque>

#include "user/vault/restore.h"

namespace herald::cli {

class KeptSegments : public vault::SegmentProvider {
  public:
    explicit KeptSegments(uint64_t bytes_max) : bytes_left_(bytes_max) {}

    // Where what is not kept comes from, from now on.
    void read_from(vault::SegmentProvider& provider) { provider_ = &provider; }

    Result<std::vector<wire::SegmentInfo>> segments(const Uuid& disk, uint64_t after,
                                                    size_t limit) override {
        return provider_->segments(disk, after, limit);
    }
    Result<Bytes> fetch(const Uuid& disk, const wire::SegmentInfo& segment) override;

  private:
    struct Kept {
        uint64_t first_position = 0;
        Uuid segment;
        Bytes bytes;
    };

    vault::SegmentProvider* provider_ = nullptr;
    uint64_t bytes_left_;
    std::deque<Kept> kept_;  // by position
};

}  // namespace herald::cli
