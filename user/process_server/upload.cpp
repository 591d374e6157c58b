// SPDX-License-Identifier: Apache-2.0
#include "user/process_server/upload.h"

#include <charconv>

#include "user/hrl/segment_reader.h"

namespace herald::process_server {

namespace {

constexpr std::string_view kPrefix = "segments/";
constexpr std::string_view kSuffix = ".hrl";
constexpr size_t kUuidText = 36;
constexpr size_t kNumberText = 16;

std::optional<uint64_t> hex_number(std::string_view text) {
    uint64_t value = 0;
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value, 16);
    if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size()) return std::nullopt;
    return value;
}

}  // namespace

std::string object_name(const Uuid& disk, uint64_t epoch, uint64_t first, const Uuid& segment) {
    return fmt::format("{}{}/{:016x}-{:016x}-{}{}", kPrefix, to_string(disk), epoch, first,
                       to_string(segment), kSuffix);
}

std::optional<ObjectPlace> parse_object_name(std::string_view name) {
    constexpr size_t kEpochAt = kPrefix.size() + kUuidText + 1;
    constexpr size_t kFirstAt = kEpochAt + kNumberText + 1;
    constexpr size_t kSegmentAt = kFirstAt + kNumberText + 1;
    if (name.size() != kSegmentAt + kUuidText + kSuffix.size()) return std::nullopt;
    auto disk = Uuid::parse(name.substr(kPrefix.size(), kUuidText));
    auto segment = Uuid::parse(name.substr(kSegmentAt, kUuidText));
    const auto epoch = hex_number(name.substr(kEpochAt, kNumberText));
    const auto first = hex_number(name.substr(kFirstAt, kNumberText));
    if (!disk || !segment || !epoch || !first) return std::nullopt;
    // Only what is spelt exactly as we spell it is ours.
    if (object_name(*disk, *epoch, *first, *segment) != name) return std::nullopt;
    return ObjectPlace{*disk, *epoch, *first};
}

OfferedSegment to_offered(const vault::SegmentRow& row) {
    OfferedSegment offered;
    offered.epoch = row.epoch;
    offered.first = row.first_position;
    offered.last = row.last_position;
    offered.digest = row.digest;
    offered.segment = row.segment;
    offered.previous = row.previous_segment;
    return offered;
}

Result<Upload> verify_upload(const UploadClaim& claim, ByteView body) {
    const std::string name = fmt::format("segment at position {}", claim.first);
    const Digest128 digest = xxh3_128(body);
    if (to_hex(digest.bytes) != claim.digest) {
        return fail(ErrorKind::corrupt, "{}: its digest is {}, the request says '{}'", name,
                    to_hex(digest.bytes), claim.digest.substr(0, 64));
    }
    auto reader = hrl::SegmentReader::open(hrl::memory_source(body, name));
    if (!reader) return pass(reader);
    const hrl::SegmentHeader header = reader->header();
    if (header.machine != claim.machine || header.disk != claim.disk ||
        header.epoch != claim.epoch || header.first_position != claim.first) {
        return fail(ErrorKind::corrupt,
                    "{}: its header says machine {}, disk {}, epoch {}, position {}, the request "
                    "machine {}, disk {}, epoch {}",
                    name, to_string(header.machine), to_string(header.disk), header.epoch,
                    header.first_position, to_string(claim.machine), to_string(claim.disk),
                    claim.epoch);
    }
    vault::SegmentEffects effects(header);
    auto summary =
        hrl::verify_segment(hrl::memory_source(body, name),
                            [&](const hrl::Record& record) { return effects.observe(record); });
    if (!summary) return pass(summary);
    vault::SegmentRow row;
    row.first_position = header.first_position;
    row.last_position = summary->last_position;
    row.epoch = header.epoch;
    row.segment = header.segment;
    row.previous_segment = header.previous_segment;
    row.bytes = body.size();
    row.raw_bytes = summary->raw_bytes;
    row.digest = digest;
    row.object = object_name(claim.disk, row.epoch, row.first_position, row.segment);
    return Upload{to_offered(row), row, std::move(effects)};
}

}  // namespace herald::process_server
