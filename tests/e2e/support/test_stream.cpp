// SPDX-License-Identifier: Apache-2.0
#include "tests/e2e/support/test_stream.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <iostream>

#include "tests/catch.hpp"
#include "user/wire/messages.h"

namespace herald::test {

namespace {

constexpr std::chrono::seconds kDeadline{30};
constexpr uint64_t kScanWriteBytes = 256u << 10;
constexpr uint64_t kPointStep_ns = 60'000'000'000;

}  // namespace

uint64_t test_seed() {
    const char* given = std::getenv("HERALD_SEED");
    const uint64_t seed =
        given ? std::strtoull(given, nullptr, 0)
              : uint64_t(std::chrono::steady_clock::now().time_since_epoch().count());
    std::cout << "HERALD_SEED=" << seed << std::endl;
    return seed;
}

size_t by_tier(size_t check, size_t ci, size_t nightly) {
    const char* tier = std::getenv("HERALD_TIER");
    const std::string_view name = tier ? tier : "check";
    return name == "nightly" ? nightly : name == "ci" ? ci : check;
}

TestStream::TestStream(const Uuid& machine, uint64_t disk_bytes, uint64_t seed)
    : machine_(machine), image_(disk_bytes), random_(seed) {}

wire::HttpResponse TestStream::open_session(wire::HttpClient& client) {
    wire::SessionRequest request;
    request.session = session_;
    request.name = "/dev/test on web1";
    request.identity = "loop:" + to_string(disk_);
    request.disk_bytes = image_.size();
    request.block_bytes = HERALD_BLOCK_BYTES;
    const std::string body = wire::encode(request);
    auto answer = client.send({"POST",
                               "/v1/disks/" + to_string(disk_) + "/session",
                               {{"content-type", "application/json"}},
                               as_bytes(body)},
                              kDeadline);
    INFO((answer ? "" : answer.error().message));
    REQUIRE(answer);
    if (answer->status == 200) {
        const auto grant = wire::decode_session_grant(as_text(answer->body));
        REQUIRE(grant);
        epoch_ = grant->epoch;
    }
    return std::move(*answer);
}

void TestStream::append(hrl::SegmentWriter& writer, hrl::RecordKind kind, uint64_t offset,
                        uint64_t length, ByteView data) {
    hrl::Record record;
    record.kind = kind;
    record.position = ++position_;
    record.offset = offset;
    record.length = length;
    record.time_ns = time_ns_;
    record.data = data;
    const auto appended = writer.append(record);
    INFO((appended ? "" : appended.error().message));
    REQUIRE(appended);
}

// Half random, half of one value: about 2 : 1 under compression.
void TestStream::fill(uint64_t offset, uint64_t length) {
    const auto value = std::byte(random_());
    for (uint64_t i = 0; i < length; ++i)
        image_[offset + i] = (i / 64) % 2 ? value : std::byte(random_());
}

hrl::Segment TestStream::next_segment(const std::string& point_name, bool quiescent, int changes) {
    using hrl::RecordKind;
    hrl::SegmentHeader header;
    header.machine = machine_;
    header.disk = disk_;
    header.segment = Uuid::random();
    header.previous_segment = previous_segment_;
    header.epoch = epoch_;
    header.first_position = position_ + 1;
    header.disk_bytes = image_.size();
    header.created_ns = time_ns_;
    hrl::SegmentWriter writer(header);
    const bool first = position_ == 0;
    if (first)
        append(writer, RecordKind::activation, 0, 0,
               hrl::encode_activation({session_, hrl::StreamMode::unordered, "ebpf", ""}));
    const uint64_t scan = ++scans_;
    const auto cause = first ? hrl::ScanCause::initial : hrl::ScanCause::catch_up;
    append(writer, RecordKind::scan_begin, 0, 0, hrl::encode_scan_begin({scan, cause}));
    if (first) {
        for (uint64_t at = 0; at < image_.size(); at += kScanWriteBytes) {
            const uint64_t length = std::min<uint64_t>(kScanWriteBytes, image_.size() - at);
            if (random_() % 4 == 0) {
                append(writer, RecordKind::zeroes, at, length, {});
            } else {
                fill(at, length);
                append(writer, RecordKind::write, at, length, ByteView(image_).subspan(at, length));
            }
        }
    } else {
        const uint64_t sectors = image_.size() / HERALD_SECTOR_BYTES;
        for (int i = 0; i < changes; ++i) {
            const uint64_t offset = random_() % sectors;
            const uint64_t length = 1 + random_() % std::min<uint64_t>(sectors - offset, 128);
            const uint64_t offset_bytes = offset * HERALD_SECTOR_BYTES;
            const uint64_t bytes = length * HERALD_SECTOR_BYTES;
            const ByteView data = ByteView(image_).subspan(offset_bytes, bytes);
            if (i % 4 == 3) {
                std::fill_n(image_.begin() + int64_t(offset_bytes), bytes, std::byte{0});
                append(writer, i == 3 ? RecordKind::discard : RecordKind::zeroes, offset_bytes,
                       bytes, {});
            } else {
                fill(offset_bytes, bytes);
                append(writer, RecordKind::write, offset_bytes, bytes, data);
            }
        }
    }
    append(writer, RecordKind::scan_end, 0, 0, hrl::encode_scan_end({scan, quiescent, 0}));
    if (!point_name.empty()) {
        time_ns_ += kPointStep_ns;
        append(writer, RecordKind::tag, 0, 0,
               hrl::encode_tag({Uuid::random(), time_ns_, hrl::TagKind::manual,
                                hrl::Consistency::filesystem, point_name}));
    }
    auto segment = std::move(writer).finish();
    INFO((segment ? "" : segment.error().message));
    REQUIRE(segment);
    previous_segment_ = header.segment;
    return std::move(*segment);
}

wire::HttpResponse TestStream::put(wire::HttpClient& client, const Uuid& disk, uint64_t first,
                                   uint64_t epoch, ByteView body, const Digest128& digest) {
    auto answer = client.send({"PUT",
                               fmt::format("/v1/disks/{}/segments/{}", to_string(disk), first),
                               {{"content-type", "application/octet-stream"},
                                {wire::kHeaderEpoch, fmt::format("{}", epoch)},
                                {wire::kHeaderDigest, to_hex(digest.bytes)}},
                               body},
                              kDeadline);
    INFO((answer ? "" : answer.error().message));
    REQUIRE(answer);
    return std::move(*answer);
}

wire::HttpResponse TestStream::put(wire::HttpClient& client, const hrl::Segment& segment) const {
    return put(client, disk_, segment.header.first_position, segment.header.epoch, segment.bytes,
               xxh3_128(segment.bytes));
}

void TestStream::deliver(wire::HttpClient& client, const std::string& point_name, bool quiescent) {
    const auto segment = next_segment(point_name, quiescent);
    const auto answer = put(client, segment);
    INFO(as_text(answer.body));
    REQUIRE(answer.status == 200);
    const auto ack = wire::decode_segment_ack(as_text(answer.body));
    REQUIRE(ack);
    REQUIRE(ack->stored == segment.last_position);
}

}  // namespace herald::test
