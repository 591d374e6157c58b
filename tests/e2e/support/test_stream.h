// SPDX-License-Identifier: Apache-2.0
// TestStream: a change stream built by hand, with the image that it must restore to, and the calls
// that a replicator makes to deliver it.
// Callers: one thread. Owns: the model image. Failure: a failed REQUIRE.
#pragma once

#include <random>
#include <string>
#include <vector>

#include "user/base/digest.h"
#include "user/hrl/segment_writer.h"
#include "user/wire/http_client.h"

namespace herald::test {

class TestStream {
  public:
    TestStream(const Uuid& machine, uint64_t disk_bytes, uint64_t seed);

    const Uuid& disk() const { return disk_; }
    uint64_t epoch() const { return epoch_; }
    const Bytes& image() const { return image_; }

    // POST session; sets the epoch.
    wire::HttpResponse open_session(wire::HttpClient& client);
    // Builds the next segment: a scan of the whole disk (the first time, after an activation) or
    // `changes` random writes, zeroes and discards inside a scan, about 12 KiB of segment each, and
    // at its end, when named, a point. It becomes part of the stream.
    hrl::Segment next_segment(const std::string& point_name, bool quiescent = true,
                              int changes = 16);
    // Header fields as a replicator sends them.
    static wire::HttpResponse put(wire::HttpClient& client, const Uuid& disk, uint64_t first,
                                  uint64_t epoch, ByteView body, const Digest128& digest);
    wire::HttpResponse put(wire::HttpClient& client, const hrl::Segment& segment) const;

    // next_segment and a put that must succeed.
    void deliver(wire::HttpClient& client, const std::string& point_name, bool quiescent = true);

  private:
    void append(hrl::SegmentWriter& writer, hrl::RecordKind kind, uint64_t offset, uint64_t length,
                ByteView data);
    void fill(uint64_t offset, uint64_t length);

    Uuid machine_;
    Uuid disk_ = Uuid::random();
    Uuid session_ = Uuid::random();
    Uuid previous_segment_;
    uint64_t epoch_ = 0;
    uint64_t position_ = 0;
    uint64_t scans_ = 0;
    uint64_t time_ns_ = 1'795'442'706'000'000'000;  // 2026-11-23T14:05:06Z
    Bytes image_;
    std::mt19937_64 random_;
};

// From HERALD_SEED, otherwise from the clock; printed, so that a failure can be run again.
uint64_t test_seed();
// `check`, `ci` or `nightly` counts, by HERALD_TIER.
size_t by_tier(size_t check, size_t ci, size_t nightly);

}  // namespace herald::test
