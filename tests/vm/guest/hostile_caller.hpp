// SPDX-License-Identifier: Apache-2.0
// One thread's ioctls: makes a valid one, spoils it now and then, puts it somewhere odd now and
// then, and looks at what came back. Promise: a call that must be refused and is not, or an answer
// that holds what the interface does not define, is a finding.
#ifndef HERALD_TESTS_VM_GUEST_HOSTILE_CALLER_HPP
#define HERALD_TESTS_VM_GUEST_HOSTILE_CALLER_HPP

#include "hostile_storm.hpp"

class Caller {
  public:
    Caller(Storm& storm, std::uint64_t seed)
        : storm_(storm), random_(seed), calls_(hostile::make_calls()), arena_(2), more_(9) {}

    Random& random() { return random_; }

    void refresh(int file) {
        std::vector<herald_cbt_row_abi> rows(HERALD_CBT_DISKS_MAX);
        herald_cbt_list_abi list{};
        list.rows = reinterpret_cast<std::uint64_t>(rows.data());
        list.capacity = HERALD_CBT_DISKS_MAX;
        if (call(file, HERALD_CBT_LIST, list) != 0)
            finding(storm_, "list: %s", std::strerror(errno));
        rows.resize(list.count);
        rows_ = std::move(rows);
        for (const herald_cbt_row_abi& row : rows_) {
            if (const char* wrong = hostile::check_row(row)) finding(storm_, "row: %s", wrong);
            ++storm_.paths[kModeMap + row.mode - HERALD_CBT_MODE_MAP];
        }
    }

    // One call of that number by that file, valid or not.
    void one(File& file, unsigned number) {
        const Call& what = calls_[number];
        bytes_.assign(what.bytes, 0);
        const auto size = static_cast<std::uint32_t>(what.bytes);
        std::memcpy(bytes_.data(), &size, sizeof(size));
        extra_ = {};
        const int descriptor = file.number.load();
        fill(number, file, descriptor);
        const bool spoiled = one_in(random_, 4);
        if (spoiled) spoil(what, number, bytes_, random_);
        const std::vector<std::uint8_t> before = bytes_;
        const Place place = arena_.put(random_, before.data(), what.bytes, one_in(random_, 6));
        unsigned long command = what.command;
        const bool foreign = one_in(random_, 50);
        if (foreign) command = no_command(command);
        Storm::Count& count = storm_.calls[number];
        ++count.tried;
        ++storm_.total;
        if (spoiled) ++count.spoiled;
        errno = 0;
        const int result = ioctl(descriptor, command, place.at);
        const int error = errno;
        if (result > 0 || (result < 0 && static_cast<std::size_t>(error) >= kErrors))
            finding(storm_, "%s: returned %d, %d", what.name, result, error);
        if (result < 0) ++count.errors[static_cast<std::size_t>(error)];
        if (error == ENODEV && (number == kRelease || number == kAck)) file.gone = true;
        if (result == 0) {
            if (foreign) finding(storm_, "%s: as command %lx succeeded", what.name, command);
            if (spoiled) finding(storm_, "%s: succeeded with what must be refused", what.name);
            if (!place.readable) finding(storm_, "%s: succeeded with no argument", what.name);
            if (!place.writable && (command & IOC_OUT) != 0)
                finding(storm_, "%s: succeeded with nowhere to answer to", what.name);
        }
        if (!arena_.intact()) finding(storm_, "%s: wrote beside its argument", what.name);
        if (!place.readable || !place.writable) return;
        bytes_.assign(place.at, place.at + what.bytes);
        if (result < 0 && bytes_ != before)
            finding(storm_, "%s: failed with %d, and changed its argument", what.name, error);
        check_extra(number, result == 0, before, what.name);
        if (result < 0) return;
        ++count.succeeded;
        check_success(number, file, before);
    }

  private:
    // One bit away from a command of the driver's, and none itself.
    unsigned long no_command(unsigned long command) {
        for (;;) {
            const unsigned long other = command ^ 1ul << random_() % 32;
            if (std::none_of(calls_.begin(), calls_.end(),
                             [other](const Call& one) { return one.command == other; }))
                return other;
        }
    }
    [[nodiscard]] herald_cbt_disk_abi a_disk() {
        if (rows_.empty() || one_in(random_, 100))
            return {static_cast<std::uint32_t>(random_()), 0};
        return rows_[random_() % rows_.size()].disk;
    }
    static herald_cbt_disk_abi disk_of(const File& file) {
        const std::uint64_t disk = file.disk.load();
        return {static_cast<std::uint32_t>(disk >> 32), static_cast<std::uint32_t>(disk)};
    }
    [[nodiscard]] const herald_cbt_row_abi* row_of(std::uint64_t disk) const {
        for (const herald_cbt_row_abi& row : rows_)
            if (packed(row.disk) == disk) return &row;
        return nullptr;
    }
    template <typename Abi>
    Abi& as() {
        return hostile::as<Abi>(bytes_);
    }

    // Memory beside the argument, of that many bytes; its address.
    std::uint64_t beside(std::size_t bytes, bool is_input) {
        std::vector<std::uint8_t> content(bytes, kPoison);
        if (is_input)
            for (std::uint8_t& byte : content) byte = static_cast<std::uint8_t>(random_());
        extra_ = more_.put(random_, content.data(), bytes, one_in(random_, 6));
        extra_bytes_ = bytes;
        return reinterpret_cast<std::uint64_t>(extra_.at);
    }

    std::uint32_t some_disks(herald_cbt_answer_abi* answers) {
        std::uint32_t count = 0;
        for (const herald_cbt_row_abi& row : rows_)
            if (count < HERALD_CBT_DISKS_PER_CALL_MAX - 1 && !one_in(random_, 3))
                answers[count++].disk = row.disk;
        // Also one that is not there.
        if (count == 0 || one_in(random_, 20)) answers[count++].disk = {7000, count};
        return count;
    }

    void fill(unsigned number, const File& file, int descriptor) {
        switch (number) {
            case kList: {
                auto& list = as<herald_cbt_list_abi>();
                list.capacity =
                    static_cast<std::uint32_t>(random_() % (one_in(random_, 8) ? 257 : 6));
                list.rows = beside(list.capacity * sizeof(herald_cbt_row_abi), false);
                return;
            }
            case kOwn: {
                auto& own = as<herald_cbt_own_abi>();
                own.disk = a_disk();
                for (const herald_cbt_row_abi& row : rows_)
                    if (row.owned == 0 && one_in(random_, 2)) own.disk = row.disk;
                return;
            }
            case kRelease: {
                const Sight sight = look(storm_, descriptor);
                auto& release = as<herald_cbt_release_abi>();
                const std::uint64_t final = sight.final_to - sight.header.tail;
                // Some of all, mostly: the rings fill, and are emptied.
                release.released = sight.header.tail +
                                   (final != 0 && one_in(random_, 3) ? random_() % final : final);
                release.drained =
                    release.released + random_() % (sight.header.head - release.released + 1);
                release.events = sight.header.events - (one_in(random_, 8) ? 1 : 0);
                return;
            }
            case kAck: {
                const Sight sight = look(storm_, descriptor);
                auto& ack = as<herald_cbt_ack_abi>();
                const std::uint64_t head = sight.header.head;
                const std::uint64_t from = std::min<std::uint64_t>(sight.header.stored, head);
                // Mostly all: what is sealed can go then.
                ack.stored = one_in(random_, 4) ? from + random_() % (head - from + 1) : head;
                ack.received = std::max<std::uint64_t>(
                    ack.stored, std::min<std::uint64_t>(sight.header.received, head));
                if (sight.header.sealed_generation != 0 && !one_in(random_, 8)) {
                    ack.flags |= HERALD_CBT_ACK_SCANNED;
                    ack.scanned = sight.header.sealed_generation;
                }
                if (one_in(random_, 8)) ack.flags |= HERALD_CBT_ACK_GAP_CLOSED;
                return;
            }
            case kTag: {
                auto& tag = as<herald_cbt_tag_abi>();
                tag.flags = one_in(random_, 4) ? static_cast<std::uint32_t>(random_() % 4) : 0;
                for (std::uint8_t& byte : tag.id) byte = static_cast<std::uint8_t>(random_());
                tag.disks = some_disks(tag.answers);
                return;
            }
            case kHold: {
                auto& hold = as<herald_cbt_hold_abi>();
                if (holder_ == &file || one_in(random_, 8)) hold.flags = HERALD_CBT_HOLD_RELEASE;
                holder_ = hold.flags == 0 ? &file : nullptr;
                // Short ones: who writes waits.
                if (hold.flags == 0)
                    hold.deadline_ms = static_cast<std::uint32_t>(
                        one_in(random_, 20) ? random_() % 301 : 1 + random_() % 20);
                hold.disks = some_disks(hold.answers);
                return;
            }
            case kSeal:
                as<herald_cbt_seal_abi>().disk =
                    file.disk.load() != 0 && !one_in(random_, 4) ? disk_of(file) : a_disk();
                return;
            case kMap: {
                auto& map = as<herald_cbt_map_abi>();
                map.disk = a_disk();
                map.which = 1 + static_cast<std::uint32_t>(random_() % 3);
                map.first_block = one_in(random_, 3) ? random_() % 8 * 64 : 0;
                map.blocks = one_in(random_, 4) ? 0 : random_() % 300;
                if (one_in(random_, 20)) map.blocks = random_() % (8 * 8 * kPage);
                if (map.blocks != 0) map.buffer = beside((map.blocks + 7) / 8, false);
                return;
            }
            case kMark: {
                auto& mark = as<herald_cbt_mark_abi>();
                mark.disk = a_disk();
                const herald_cbt_row_abi* row = row_of(packed(mark.disk));
                const std::uint64_t sectors = row != nullptr ? row->sectors : 8192;
                mark.sector = random_() % sectors;
                mark.sectors = 1 + random_() % (sectors - mark.sector);
                return;
            }
            case kCookie: {
                auto& cookie = as<herald_cbt_cookie_abi>();
                cookie.disk = a_disk();
                for (const herald_cbt_row_abi& row : rows_)
                    if (row.meta.major != 0 && one_in(random_, 2)) cookie.disk = row.disk;
                cookie.bytes =
                    static_cast<std::uint32_t>(random_() % (HERALD_CBT_COOKIE_BYTES_MAX + 1));
                if (file.disk.load() != 0 && one_in(random_, 2)) {
                    cookie.disk = disk_of(file);
                    cookie.flags = HERALD_CBT_COOKIE_WRITE;
                    if (!one_in(random_, 4)) cookie.bytes %= 64;
                }
                cookie.buffer = beside(cookie.bytes, cookie.flags != 0);
                return;
            }
            case kStats:
                as<herald_cbt_stats_abi>().disk = a_disk();
                return;
            case kCut: {
                auto& cut = as<herald_cbt_cut_abi>();
                cut.disks = some_disks(cut.answers);
                return;
            }
            case kDetach: {
                auto& detach = as<herald_cbt_detach_abi>();
                detach.disk = a_disk();
                detach.flags = one_in(random_, 2) ? HERALD_CBT_DETACH_UNDO : 0;
                return;
            }
            default:
                return;
        }
    }

    // What lies beside the argument: nothing but the answer was written to it.
    void check_extra(unsigned number, bool success, const std::vector<std::uint8_t>& before,
                     const char* name) {
        if (extra_.at == nullptr || !extra_.readable) return;
        if (!more_.intact()) finding(storm_, "%s: wrote beside its buffer", name);
        std::size_t written = 0;
        if (!success) {
            // Not all or nothing where the buffer is whole and the answer has no place: that is
            // EFAULT, or a generation that changed midway.
            return;
        }
        if (number == kList) {
            const auto& list = as<herald_cbt_list_abi>();
            if (list.count > HERALD_CBT_DISKS_MAX) finding(storm_, "list: %u disks", list.count);
            written = std::min(list.count, list.capacity) * sizeof(herald_cbt_row_abi);
            for (std::size_t at = 0; at < written; at += sizeof(herald_cbt_row_abi)) {
                herald_cbt_row_abi row;
                std::memcpy(&row, extra_.at + at, sizeof(row));
                if (const char* wrong = hostile::check_row(row)) finding(storm_, "list: %s", wrong);
            }
        } else if (number == kMap) {
            const auto& map = as<herald_cbt_map_abi>();
            written = (map.blocks + 7) / 8;
            if (map.blocks % 8 != 0 && extra_.at[written - 1] >> map.blocks % 8 != 0)
                finding(storm_,
                        "map: bits beyond the %llu blocks asked for: %02x of a map from %llu",
                        static_cast<unsigned long long>(map.blocks), extra_.at[written - 1],
                        static_cast<unsigned long long>(map.first_block));
        } else if (number == kCookie) {
            const auto& asked = hostile::as<herald_cbt_cookie_abi>(before);
            if (asked.flags != 0) return;
            written = as<herald_cbt_cookie_abi>().bytes;
        }
        if (written > extra_bytes_)
            finding(storm_, "%s: answered with more than there is room", name);
        if (written != 0 && !extra_.writable) finding(storm_, "%s: wrote what is read-only", name);
        if (!Arena::is_poison(extra_.at + written, extra_bytes_ - written))
            finding(storm_, "%s: wrote more than it says", name);
    }

    void check_success(unsigned number, File& file, const std::vector<std::uint8_t>& before) {
        const Call& what = calls_[number];
        const std::size_t changed = first_changed(what, before, bytes_);
        if (changed != what.bytes) finding(storm_, "%s: changed byte %zu", what.name, changed);
        if (const char* wrong = hostile::check_answer(number, bytes_))
            finding(storm_, "%s: not so: %s", what.name, wrong);
        switch (number) {
            case kOwn:
                file.disk = packed(as<herald_cbt_own_abi>().disk);
                return;
            case kAck: {
                const auto& ack = as<herald_cbt_ack_abi>();
                storm_.paths[kScanned] += (ack.flags & HERALD_CBT_ACK_SCANNED) != 0;
                storm_.paths[kGapClosed] += (ack.flags & HERALD_CBT_ACK_GAP_CLOSED) != 0;
                return;
            }
            case kTag:
                count_answers(as<herald_cbt_tag_abi>().answers, as<herald_cbt_tag_abi>().disks,
                              kTagLanded, kTagDowngraded, kTagRefused);
                return;
            case kHold: {
                const auto& hold = as<herald_cbt_hold_abi>();
                const bool release = hold.flags != 0;
                count_answers(hold.answers, hold.disks, release ? kHoldReleased : kHoldLanded,
                              kPaths, kHoldRefused);
                return;
            }
            case kMap: {
                const auto& map = as<herald_cbt_map_abi>();
                const auto& asked = hostile::as<herald_cbt_map_abi>(before);
                if (map.blocks > asked.blocks || (map.first_block != 0 && map.dirty_blocks != 0) ||
                    map.dirty_blocks > HERALD_CBT_DISK_SECTORS_MAX >>
                        HERALD_CBT_BLOCK_SECTORS_SHIFT ||
                    map.generation >= hostile::kCountMax)
                    finding(storm_, "map: answers that cannot be");
                ++storm_.paths[map.blocks != 0 ? kMapCopied : kMapAsked];
                return;
            }
            case kCookie:
                ++storm_
                      .paths[as<herald_cbt_cookie_abi>().flags != 0 ? kCookieWritten : kCookieRead];
                return;
            default:
                return;
        }
    }

    void count_answers(const herald_cbt_answer_abi* answers, std::uint32_t disks, Path landed,
                       Path downgraded, Path refused) {
        for (std::uint32_t index = 0; index < disks; ++index) {
            const std::uint32_t result = answers[index].result;
            const Path path = result == HERALD_CBT_LANDED       ? landed
                              : result == HERALD_CBT_DOWNGRADED ? downgraded
                                                                : refused;
            if (path == kPaths) finding(storm_, "a hold that was downgraded");
            ++storm_.paths[path];
        }
    }

    Storm& storm_;
    Random random_;
    std::vector<Call> calls_;
    Arena arena_;
    Arena more_;
    std::vector<herald_cbt_row_abi> rows_;
    const File* holder_ = nullptr;  // called for a hold last
    std::vector<std::uint8_t> bytes_;
    Place extra_;
    std::size_t extra_bytes_ = 0;
};

#endif
