// SPDX-License-Identifier: Apache-2.0
// CbtReader drains the change ring of one disk in the order of its slots, and knows which slots an
// acknowledged position of the stream covers.
// Promise: stops before the first slot that is still reserved; whatever the shared memory holds,
// what is handed out lies within the payload area and the largest disk, or the error is `corrupt`
// and names the slot. A slot without data counts as stored only when all that was to do since has
// been read and that is stored.
// Callers: one thread. Sans I/O over the shared memory; the calls to the driver are its owner's.
// Owns: marks from slots to positions, at most kMarksMax of them (then every other one goes, and an
// acknowledgement covers a little less than it could); borrows the areas.
#pragma once

#include <functional>
#include <optional>

#include "user/tracker/cbt_device.h"
#include "user/tracker/tracker.h"

namespace herald::tracker {

class CbtReader {
  public:
    static constexpr size_t kMarksMax = 4096;

    // own: the answer to CbtDevice::own(). to_read: a range whose content is not in the ring.
    CbtReader(const CbtAreas& areas, const herald_cbt_own_abi& own, std::string name,
              std::function<void(uint64_t offset, uint64_t length)> to_read);

    Result<std::optional<OrderedChange>> next();
    // Of the change handed out last.
    void emitted(uint64_t position);
    void all_read(uint64_t position);

    // Slots before this one are covered when the stream is received (stored) up to the position.
    uint64_t slots_at(uint64_t position) const;
    // They will not be asked for again.
    void forget(uint64_t position);
    // Slots before this one can be given back: those received, or all that were drained once the
    // ring is more than half full.
    uint64_t releasable(uint64_t received_slots) const;

    uint64_t drained() const { return drained_; }
    size_t marks() const { return marks_.size(); }
    uint64_t head() const { return __atomic_load_n(&areas_.header->head, __ATOMIC_ACQUIRE); }
    uint32_t mode() const { return __atomic_load_n(&areas_.header->mode, __ATOMIC_ACQUIRE); }
    uint64_t time_ns() const { return time_ns_; }  // of the newest slot drained

  private:
    Result<OrderedChange> look_at(const herald_cbt_slot_abi& slot);
    Result<OrderedChange> mode_change(uint32_t mode, uint32_t cause);
    OrderedChange unread(const herald_cbt_slot_abi& slot, OrderedChange change);
    template <class... Args>
    tl::unexpected<Error> rotten(fmt::format_string<Args...> format, Args&&... args) const;

    CbtAreas areas_;
    std::string name_;
    std::function<void(uint64_t, uint64_t)> to_read_;
    uint64_t drained_;
    uint64_t time_ns_ = 0;
    uint32_t mode_ = HERALD_CBT_MODE_ORDERED;  // as the stream has been told
    struct Mark {
        uint64_t slots_end;
        uint64_t position;
    };
    uint64_t covered_;              // slots before it: for any position
    std::vector<Mark> marks_;       // both ascending
    std::optional<uint64_t> bare_;  // the oldest slot whose range was not read since
};

}  // namespace herald::tracker
