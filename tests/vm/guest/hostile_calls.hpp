// SPDX-License-Identifier: Apache-2.0
// Every ioctl of include/herald/abi/cbt.h as data: which bytes must be zero, which flags there are,
// which bytes it answers with. Promise: what spoil() made is refused by a driver that checks its
// input; check() finds an answer that holds anything but what the interface defines.
#ifndef HERALD_TESTS_VM_GUEST_HOSTILE_CALLS_HPP
#define HERALD_TESTS_VM_GUEST_HOSTILE_CALLS_HPP

#include <cstddef>
#include <vector>

#include "hostile_memory.hpp"

enum CallNumber : unsigned {
    kInfo,
    kList,
    kOwn,
    kRelease,
    kAck,
    kTag,
    kHold,
    kSeal,
    kMap,
    kMark,
    kCookie,
    kStats,
    kCut,
    kDetach,
    kCalls,
};

struct Span {
    std::size_t at;
    std::size_t bytes;
};

struct Call {
    const char* name;
    unsigned long command;
    std::size_t bytes;
    std::uint32_t flags;        // that exist
    std::vector<Span> zero;     // besides unknown flags: must be zero in the call
    std::vector<Span> answers;  // may differ after it
};

namespace hostile {

inline std::vector<Span> answer_spans(std::size_t answers, std::vector<Span> more) {
    for (std::size_t index = 0; index < HERALD_CBT_DISKS_PER_CALL_MAX; ++index)
        more.push_back({answers + index * sizeof(herald_cbt_answer_abi) +
                            offsetof(herald_cbt_answer_abi, result),
                        sizeof(herald_cbt_answer_abi) - offsetof(herald_cbt_answer_abi, result)});
    return more;
}

// From `first` to the end of `last`.
#define HOSTILE_SPAN(type, first, last)                                                          \
    Span {                                                                                       \
        offsetof(type, first), offsetof(type, last) + sizeof(type::last) - offsetof(type, first) \
    }
#define HOSTILE_CALL(name, command, type, flags, ...) \
    Call { name, command, sizeof(type), flags, __VA_ARGS__ }

// Beside the interface's own order of numbers.
inline std::vector<Call> make_calls() {
    const Span info = HOSTILE_SPAN(herald_cbt_info_abi, version, memory_bytes_max);
    const Span list = HOSTILE_SPAN(herald_cbt_list_abi, count, count);
    const Span own = HOSTILE_SPAN(herald_cbt_own_abi, slots, sectors);
    const Span ack = HOSTILE_SPAN(herald_cbt_ack_abi, sealed_generation, current_flags);
    const auto tag = answer_spans(offsetof(herald_cbt_tag_abi, answers),
                                  {HOSTILE_SPAN(herald_cbt_tag_abi, time_ns, time_ns)});
    const auto hold = answer_spans(offsetof(herald_cbt_hold_abi, answers), {});
    const Span seal = HOSTILE_SPAN(herald_cbt_seal_abi, sealed_generation, sealed_flags);
    const Span map = HOSTILE_SPAN(herald_cbt_map_abi, generation, dirty_blocks);
    const Span stats = HOSTILE_SPAN(herald_cbt_stats_abi, writes, capture);
    const auto cut = answer_spans(offsetof(herald_cbt_cut_abi, answers),
                                  {HOSTILE_SPAN(herald_cbt_cut_abi, time_ns, time_ns)});
    auto with = [](std::vector<Span> spans, Span more) {
        spans.push_back(more);
        return spans;
    };
    using Spans = std::vector<Span>;
    return {
        HOSTILE_CALL("info", HERALD_CBT_INFO, herald_cbt_info_abi, 0, Spans{info}, Spans{info}),
        HOSTILE_CALL("list", HERALD_CBT_LIST, herald_cbt_list_abi, 0, Spans{list}, Spans{list}),
        HOSTILE_CALL("own", HERALD_CBT_OWN, herald_cbt_own_abi, 0, Spans{own}, Spans{own}),
        HOSTILE_CALL("release", HERALD_CBT_RELEASE, herald_cbt_release_abi, 0,
                     Spans{HOSTILE_SPAN(herald_cbt_release_abi, reserved, reserved)}, Spans{}),
        HOSTILE_CALL("ack", HERALD_CBT_ACK, herald_cbt_ack_abi,
                     HERALD_CBT_ACK_GAP_CLOSED | HERALD_CBT_ACK_SCANNED, Spans{ack}, Spans{ack}),
        HOSTILE_CALL("tag", HERALD_CBT_TAG_DISKS, herald_cbt_tag_abi,
                     HERALD_CBT_TAG_ALL | HERALD_CBT_TAG_HELD,
                     with(tag, HOSTILE_SPAN(herald_cbt_tag_abi, reserved, reserved)), tag),
        HOSTILE_CALL("hold", HERALD_CBT_HOLD, herald_cbt_hold_abi, HERALD_CBT_HOLD_RELEASE, hold,
                     hold),
        HOSTILE_CALL("seal", HERALD_CBT_SEAL, herald_cbt_seal_abi, 0,
                     Spans{HOSTILE_SPAN(herald_cbt_seal_abi, sealed_generation, reserved)},
                     Spans{seal}),
        HOSTILE_CALL("map", HERALD_CBT_MAP, herald_cbt_map_abi, 0,
                     with({map}, HOSTILE_SPAN(herald_cbt_map_abi, reserved, reserved)),
                     with({map}, HOSTILE_SPAN(herald_cbt_map_abi, blocks, blocks))),
        HOSTILE_CALL("mark", HERALD_CBT_MARK, herald_cbt_mark_abi, 0, Spans{}, Spans{}),
        HOSTILE_CALL("cookie", HERALD_CBT_COOKIE, herald_cbt_cookie_abi, HERALD_CBT_COOKIE_WRITE,
                     Spans{HOSTILE_SPAN(herald_cbt_cookie_abi, reserved, reserved)},
                     Spans{HOSTILE_SPAN(herald_cbt_cookie_abi, bytes, bytes)}),
        HOSTILE_CALL("stats", HERALD_CBT_STATS, herald_cbt_stats_abi, 0, Spans{stats},
                     Spans{stats}),
        HOSTILE_CALL("cut", HERALD_CBT_CUT, herald_cbt_cut_abi, 0,
                     with(cut, HOSTILE_SPAN(herald_cbt_cut_abi, reserved, reserved)), cut),
        HOSTILE_CALL("detach", HERALD_CBT_DETACH, herald_cbt_detach_abi, HERALD_CBT_DETACH_UNDO,
                     Spans{}, Spans{}),
    };
}

template <typename Abi>
Abi& as(std::vector<std::uint8_t>& bytes) {
    // Vectors of bytes are aligned as operator new aligns.
    return *reinterpret_cast<Abi*>(bytes.data());
}
template <typename Abi>
const Abi& as(const std::vector<std::uint8_t>& bytes) {
    return *reinterpret_cast<const Abi*>(bytes.data());
}

// What a call of this number must not say, whatever the rest says. False: it has no such limit.
inline bool break_limit(unsigned number, std::vector<std::uint8_t>& bytes, Random& random) {
    switch (number) {
        case kList:
            as<herald_cbt_list_abi>(bytes).capacity =
                HERALD_CBT_DISKS_MAX + 1 + static_cast<std::uint32_t>(random() >> 33);
            return true;
        case kRelease: {
            auto& release = as<herald_cbt_release_abi>(bytes);
            release.released = one_in(random, 2) ? random() | 1ull << 62 : release.drained + 1;
            if (one_in(random, 2)) release.drained = release.released = random() | 1ull << 62;
            return true;
        }
        case kAck: {
            auto& ack = as<herald_cbt_ack_abi>(bytes);
            if (one_in(random, 3) && (ack.flags & HERALD_CBT_ACK_SCANNED) == 0)
                ack.scanned = 1 + random() % 8;
            else if (one_in(random, 2))
                ack.stored = ack.received + 1 + random() % 4;
            else
                ack.received = random() | 1ull << 62;
            return true;
        }
        case kTag:
        case kHold:
        case kCut: {
            // The same place in all three.
            static_assert(offsetof(herald_cbt_tag_abi, disks) == 8);
            static_assert(offsetof(herald_cbt_hold_abi, disks) == 8);
            static_assert(offsetof(herald_cbt_cut_abi, disks) == 8);
            auto& disks = as<herald_cbt_hold_abi>(bytes).disks;
            auto* answers = reinterpret_cast<herald_cbt_answer_abi*>(
                bytes.data() + (number == kTag   ? offsetof(herald_cbt_tag_abi, answers)
                                : number == kCut ? offsetof(herald_cbt_cut_abi, answers)
                                                 : offsetof(herald_cbt_hold_abi, answers)));
            if (number == kHold && one_in(random, 3)) {
                auto& hold = as<herald_cbt_hold_abi>(bytes);
                if ((hold.flags & HERALD_CBT_HOLD_RELEASE) != 0)
                    hold.deadline_ms = 1;  // of a hold that ends now
                else
                    hold.deadline_ms =
                        HERALD_CBT_HOLD_MS_MAX + 1 + static_cast<std::uint32_t>(random() >> 33);
            } else if (one_in(random, 3)) {
                disks = one_in(random, 2) ? 0 : 17 + static_cast<std::uint32_t>(random() >> 33);
            } else if (disks < HERALD_CBT_DISKS_PER_CALL_MAX && one_in(random, 2)) {
                answers[disks].disk.minor = 1;  // beyond the last
            } else if (disks < HERALD_CBT_DISKS_PER_CALL_MAX) {
                answers[disks].disk = answers[0].disk;  // one disk twice
                ++disks;
            } else {
                disks = 0;
            }
            return true;
        }
        case kMap: {
            auto& map = as<herald_cbt_map_abi>(bytes);
            if (one_in(random, 3))
                map.which = one_in(random, 2) ? 0 : 4 + static_cast<std::uint32_t>(random() >> 33);
            else if (one_in(random, 2))
                map.first_block |= 1 + random() % 63;
            else
                map.blocks = 8ull * HERALD_CBT_MAP_BYTES_MAX + 1 + (random() >> 1);
            return true;
        }
        case kMark: {
            auto& mark = as<herald_cbt_mark_abi>(bytes);
            if (one_in(random, 3))
                mark.sectors = 0;
            else if (one_in(random, 2))
                mark.sector = HERALD_CBT_DISK_SECTORS_MAX + (random() >> 1);
            else
                mark.sectors = ~std::uint64_t{0} - random() % 1000;
            return true;
        }
        case kCookie:
            as<herald_cbt_cookie_abi>(bytes).bytes =
                HERALD_CBT_COOKIE_BYTES_MAX + 1 + static_cast<std::uint32_t>(random() >> 33);
            return true;
        default:
            return false;
    }
}

}  // namespace hostile

// Makes something that must be refused of what need not be.
inline void spoil(const Call& call, unsigned number, std::vector<std::uint8_t>& bytes,
                  Random& random) {
    const std::size_t choice = random() % 4;
    if (choice == 0 && hostile::break_limit(number, bytes, random)) return;
    if (choice <= 1 && !call.zero.empty()) {
        const Span span = call.zero[random() % call.zero.size()];
        bytes[span.at + random() % span.bytes] = static_cast<std::uint8_t>(1 + random() % 255);
        return;
    }
    std::uint32_t word = 0;
    if (choice <= 2) {
        std::memcpy(&word, &bytes[4], sizeof(word));
        do word ^= 1u << random() % 32;
        while ((word & ~call.flags) == 0);
        std::memcpy(&bytes[4], &word, sizeof(word));
        return;
    }
    do
        word = one_in(random, 2) ? static_cast<std::uint32_t>(random())
                                 : static_cast<std::uint32_t>(call.bytes + random() % 17 - 8);
    while (word == call.bytes);
    std::memcpy(bytes.data(), &word, sizeof(word));
}

// The first byte of a successful call's answer that is none, or `call.bytes`.
inline std::size_t first_changed(const Call& call, const std::vector<std::uint8_t>& before,
                                 const std::vector<std::uint8_t>& after) {
    for (std::size_t at = 0; at < call.bytes; ++at) {
        const bool answered = std::any_of(
            call.answers.begin(), call.answers.end(),
            [at](const Span& span) { return at >= span.at && at < span.at + span.bytes; });
        if (!answered && before[at] != after[at]) return at;
    }
    return call.bytes;
}

#endif
