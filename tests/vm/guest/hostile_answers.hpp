// SPDX-License-Identifier: Apache-2.0
// What a successful call may answer, field by field, and what the mapped header and slots may hold.
// Promise: null, or the name of the first thing that is not as the interface says. Every word is
// bounded, so that bytes of the kernel's memory in its place are noticed.
#ifndef HERALD_TESTS_VM_GUEST_HOSTILE_ANSWERS_HPP
#define HERALD_TESTS_VM_GUEST_HOSTILE_ANSWERS_HPP

#include "hostile_calls.hpp"

namespace hostile {

// Of slots, bytes, sectors: nothing in this test comes near.
constexpr std::uint64_t kCountMax = 1ull << 40;
// 2020 to 2100: the driver's clock is that of the wall.
constexpr std::uint64_t kTimeMin = 1577836800ull * 1000000000;
constexpr std::uint64_t kTimeMax = 4102444800ull * 1000000000;
constexpr std::uint32_t kGenerationFlags = 0x7;

inline bool is_time(std::uint64_t word) { return word >= kTimeMin && word <= kTimeMax; }
inline bool is_all_zero(const void* from, std::size_t bytes) {
    const auto* at = static_cast<const std::uint8_t*>(from);
    return std::all_of(at, at + bytes, [](std::uint8_t byte) { return byte == 0; });
}

#define HOSTILE_EXPECT(condition)            \
    do                                       \
        if (!(condition)) return #condition; \
    while (false)

inline const char* check_answers(const herald_cbt_answer_abi* answers, std::uint32_t disks) {
    for (std::uint32_t index = 0; index < HERALD_CBT_DISKS_PER_CALL_MAX; ++index) {
        const herald_cbt_answer_abi& answer = answers[index];
        if (index >= disks) {
            HOSTILE_EXPECT(is_all_zero(&answer, sizeof(answer)));
            continue;
        }
        HOSTILE_EXPECT(answer.result >= HERALD_CBT_LANDED && answer.result <= HERALD_CBT_REFUSED);
        HOSTILE_EXPECT(answer.cause < HERALD_CBT_CAUSE_COUNT);
        HOSTILE_EXPECT(answer.slot < kCountMax);
    }
    return nullptr;
}

inline const char* check_row(const herald_cbt_row_abi& row) {
    HOSTILE_EXPECT(row.disk.major != 0 && row.disk.major < 4096 && row.disk.minor < 1u << 20);
    HOSTILE_EXPECT(row.origin.major != 0 && row.origin.major < 4096);
    HOSTILE_EXPECT(row.origin.minor < 1u << 20);
    HOSTILE_EXPECT(row.meta.major < 4096 && row.meta.minor < 1u << 20);
    HOSTILE_EXPECT(row.sectors != 0 && row.sectors <= HERALD_CBT_DISK_SECTORS_MAX);
    HOSTILE_EXPECT(row.mode >= HERALD_CBT_MODE_MAP && row.mode <= HERALD_CBT_MODE_ORDERED);
    HOSTILE_EXPECT(row.mode_cause < HERALD_CBT_CAUSE_COUNT && row.gap < HERALD_CBT_CAUSE_COUNT);
    HOSTILE_EXPECT(row.owned <= 1 && row.suspended <= 1);
    HOSTILE_EXPECT(row.persistence >= HERALD_CBT_PERSISTENCE_NONE &&
                   row.persistence <= HERALD_CBT_PERSISTENCE_GIVEN_UP);
    return nullptr;
}

// Of everything but MAP, LIST and COOKIE, which have more than their argument.
inline const char* check_answer(unsigned number, const std::vector<std::uint8_t>& bytes) {
    switch (number) {
        case kInfo: {
            const auto& info = as<herald_cbt_info_abi>(bytes);
            HOSTILE_EXPECT(info.version == HERALD_CBT_ABI_VERSION);
            HOSTILE_EXPECT(info.disks <= HERALD_CBT_DISKS_MAX);
            HOSTILE_EXPECT((info.features & ~std::uint64_t{7}) == 0);
            HOSTILE_EXPECT(is_time(info.time_ns));
            HOSTILE_EXPECT(info.memory_bytes < kCountMax && info.memory_bytes_max < kCountMax);
            return nullptr;
        }
        case kOwn: {
            const auto& own = as<herald_cbt_own_abi>(bytes);
            HOSTILE_EXPECT(own.slots <= HERALD_CBT_SLOTS_MAX && (own.slots & (own.slots - 1)) == 0);
            HOSTILE_EXPECT(own.payload_bytes <= HERALD_CBT_PAYLOAD_BYTES_MAX);
            HOSTILE_EXPECT(own.tail <= own.head && own.head - own.tail <= own.slots);
            HOSTILE_EXPECT(own.head < kCountMax && own.stored <= own.head);
            HOSTILE_EXPECT(own.sectors != 0 && own.sectors <= HERALD_CBT_DISK_SECTORS_MAX);
            return nullptr;
        }
        case kAck: {
            const auto& ack = as<herald_cbt_ack_abi>(bytes);
            HOSTILE_EXPECT(ack.sealed_generation < kCountMax && ack.sealed_slot < kCountMax);
            HOSTILE_EXPECT((ack.sealed_flags & ~kGenerationFlags) == 0);
            HOSTILE_EXPECT((ack.current_flags & ~kGenerationFlags) == 0);
            return nullptr;
        }
        case kTag: {
            const auto& tag = as<herald_cbt_tag_abi>(bytes);
            HOSTILE_EXPECT(is_time(tag.time_ns));
            return check_answers(tag.answers, tag.disks);
        }
        case kHold: {
            const auto& hold = as<herald_cbt_hold_abi>(bytes);
            return check_answers(hold.answers, hold.disks);
        }
        case kCut: {
            const auto& cut = as<herald_cbt_cut_abi>(bytes);
            HOSTILE_EXPECT(is_time(cut.time_ns));
            return check_answers(cut.answers, cut.disks);
        }
        case kSeal: {
            const auto& seal = as<herald_cbt_seal_abi>(bytes);
            HOSTILE_EXPECT(seal.sealed_generation != 0 && seal.sealed_generation < kCountMax);
            HOSTILE_EXPECT(seal.sealed_slot < kCountMax);
            HOSTILE_EXPECT((seal.sealed_flags & ~kGenerationFlags) == 0);
            HOSTILE_EXPECT(seal.reserved == 0);
            return nullptr;
        }
        case kStats: {
            const auto& stats = as<herald_cbt_stats_abi>(bytes);
            constexpr std::uint64_t kHours = 3600ull * 1000000000 * 24;
            HOSTILE_EXPECT(stats.mode_ns[0] < kHours && stats.mode_ns[1] < kHours);
            HOSTILE_EXPECT(stats.mode_ns[2] < kHours && stats.held_ns_max < kHours);
            HOSTILE_EXPECT(stats.oldest_unstored_ns < kHours && stats.sank[2] == 0);
            for (std::size_t cause = HERALD_CBT_CAUSE_COUNT; cause < std::size(stats.causes);
                 ++cause)
                HOSTILE_EXPECT(stats.causes[cause] == 0);
            const __u64* counts = &stats.writes;
            const std::size_t count = (sizeof(stats) - offsetof(herald_cbt_stats_abi, writes)) / 8;
            for (std::size_t index = 0; index < count; ++index)
                HOSTILE_EXPECT(counts[index] < kHours);
            return nullptr;
        }
        default:
            return nullptr;
    }
}

// `tracking` is random, and may look like anything.
inline const char* check_header(const herald_cbt_header_abi& header) {
    HOSTILE_EXPECT(header.magic == HERALD_CBT_HEADER_MAGIC);
    HOSTILE_EXPECT(header.version == HERALD_CBT_ABI_VERSION);
    HOSTILE_EXPECT(header.header_bytes == sizeof(header));
    HOSTILE_EXPECT(header.slot_bytes == sizeof(herald_cbt_slot_abi));
    HOSTILE_EXPECT((header.features & ~std::uint64_t{7}) == 0);
    HOSTILE_EXPECT(header.slots <= HERALD_CBT_SLOTS_MAX);
    HOSTILE_EXPECT(header.payload_bytes <= HERALD_CBT_PAYLOAD_BYTES_MAX);
    HOSTILE_EXPECT(header.activation < kCountMax);
    HOSTILE_EXPECT(is_all_zero(header.reserved0, sizeof(header.reserved0)));
    HOSTILE_EXPECT(header.head < kCountMax && header.tail < kCountMax);
    HOSTILE_EXPECT(header.payload_head < kCountMax && header.payload_tail < kCountMax);
    HOSTILE_EXPECT(header.latch_slot < kCountMax);
    HOSTILE_EXPECT(header.sectors != 0 && header.sectors <= HERALD_CBT_DISK_SECTORS_MAX);
    HOSTILE_EXPECT(header.mode >= HERALD_CBT_MODE_MAP && header.mode <= HERALD_CBT_MODE_ORDERED);
    HOSTILE_EXPECT(header.mode_cause < HERALD_CBT_CAUSE_COUNT && header.held <= 1);
    HOSTILE_EXPECT(is_time(header.mode_since_ns));
    HOSTILE_EXPECT(header.sealed_generation < kCountMax && header.sealed_slot < kCountMax);
    HOSTILE_EXPECT((header.sealed_flags & ~kGenerationFlags) == 0);
    HOSTILE_EXPECT((header.current_flags & ~kGenerationFlags) == 0);
    HOSTILE_EXPECT(header.current_generation < kCountMax);
    HOSTILE_EXPECT(header.gap < HERALD_CBT_CAUSE_COUNT && header.reserved1 == 0);
    HOSTILE_EXPECT(header.persistence >= HERALD_CBT_PERSISTENCE_NONE);
    HOSTILE_EXPECT(header.persistence <= HERALD_CBT_PERSISTENCE_GIVEN_UP);
    HOSTILE_EXPECT(header.persistence_cause < HERALD_CBT_CAUSE_COUNT);
    const __u64* counts = &header.received;
    for (std::size_t index = 0; index < 9; ++index) HOSTILE_EXPECT(counts[index] < kCountMax);
    HOSTILE_EXPECT(is_all_zero(header.reserved2, sizeof(header.reserved2)));
    return nullptr;
}

// Slot `number` of [tail, head), whatever its state.
inline const char* check_slot(const herald_cbt_slot_abi& slot, std::uint64_t number,
                              std::uint64_t sectors_max) {
    HOSTILE_EXPECT(is_time(slot.time_ns));
    HOSTILE_EXPECT(slot.kind >= HERALD_CBT_WRITE && slot.kind <= HERALD_CBT_ACTIVATION);
    HOSTILE_EXPECT(slot.state >= HERALD_CBT_RESERVED && slot.state <= HERALD_CBT_UNRESOLVED);
    HOSTILE_EXPECT((slot.flags & ~0xf) == 0);
    HOSTILE_EXPECT(slot.sector <= sectors_max && slot.sectors <= sectors_max);
    HOSTILE_EXPECT(slot.payload < kCountMax);
    HOSTILE_EXPECT(slot.payload_bytes == 0 ||
                   slot.payload_bytes == slot.sectors * HERALD_CBT_SECTOR_BYTES);
    HOSTILE_EXPECT(slot.argument < kCountMax);
    HOSTILE_EXPECT(slot.kind == HERALD_CBT_TAG || slot.kind == HERALD_CBT_ACTIVATION ||
                   (std::memcmp(slot.id, &number, sizeof(number)) == 0 &&
                    is_all_zero(slot.id + sizeof(number), sizeof(slot.id) - sizeof(number))));
    return nullptr;
}

}  // namespace hostile

#endif
