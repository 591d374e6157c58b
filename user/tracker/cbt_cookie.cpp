// SPDX-License-Identifier: Apache-2.0
#include "user/tracker/cbt_cookie.h"

#include "herald/abi/cbt.h"
#include "herald/limits.h"
#include "user/base/digest.h"

namespace herald::tracker {

namespace {

constexpr uint32_t kMagic = 0x4b434248;  // "HBCK"
constexpr uint32_t kVersion = 1;
constexpr size_t kFixedBytes = 72;
constexpr size_t kSentBytes = 24;
constexpr size_t kDigestBytes = 8;
static_assert(kFixedBytes + HERALD_SENT_SEGMENTS_MAX * kSentBytes + kDigestBytes <=
              HERALD_CBT_COOKIE_BYTES_MAX);
static_assert(HERALD_CBT_COOKIE_BYTES_MAX == 3072);

void put(std::byte* to, const Uuid& id) { std::memcpy(to, id.bytes.data(), sizeof id.bytes); }
Uuid uuid_at(const std::byte* from) {
    Uuid id;
    std::memcpy(id.bytes.data(), from, sizeof id.bytes);
    return id;
}

}  // namespace

Bytes encode_cookie(const Continuity& continuity) {
    HERALD_ASSERT(continuity.sent.size() <= HERALD_SENT_SEGMENTS_MAX);
    const size_t size = kFixedBytes + continuity.sent.size() * kSentBytes;
    Bytes bytes(size + kDigestBytes);
    std::byte* const at = bytes.data();
    store_le<uint32_t>(at, kMagic);
    store_le<uint32_t>(at + 4, kVersion);
    put(at + 8, continuity.disk);
    put(at + 24, continuity.session);
    put(at + 40, continuity.next_session);
    store_le<uint64_t>(at + 56, continuity.acked_position);
    at[64] = std::byte{continuity.synced};
    store_le<uint32_t>(at + 68, uint32_t(continuity.sent.size()));
    std::byte* sent = at + kFixedBytes;
    for (const SentSegment& segment : continuity.sent) {
        store_le<uint64_t>(sent, segment.last_position);
        put(sent + 8, segment.segment);
        sent += kSentBytes;
    }
    store_le<uint64_t>(at + size, xxh3_64(ByteView(bytes).first(size)));
    return bytes;
}

std::optional<Continuity> decode_cookie(ByteView bytes) {
    if (bytes.size() < kFixedBytes + kDigestBytes) return std::nullopt;
    const std::byte* const at = bytes.data();
    if (load_le<uint32_t>(at) != kMagic || load_le<uint32_t>(at + 4) != kVersion) {
        return std::nullopt;
    }
    const uint32_t count = load_le<uint32_t>(at + 68);
    if (count > HERALD_SENT_SEGMENTS_MAX) return std::nullopt;
    const size_t size = kFixedBytes + count * kSentBytes;
    if (bytes.size() != size + kDigestBytes ||
        load_le<uint64_t>(at + size) != xxh3_64(bytes.first(size))) {
        return std::nullopt;
    }
    Continuity continuity;
    continuity.disk = uuid_at(at + 8);
    continuity.session = uuid_at(at + 24);
    continuity.next_session = uuid_at(at + 40);
    continuity.acked_position = load_le<uint64_t>(at + 56);
    continuity.synced = at[64] != std::byte{0};
    for (size_t i = 0; i < count; ++i) {
        const std::byte* const sent = at + kFixedBytes + i * kSentBytes;
        continuity.sent.push_back({load_le<uint64_t>(sent), uuid_at(sent + 8)});
    }
    return continuity;
}

}  // namespace herald::tracker
