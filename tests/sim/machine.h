// SPDX-License-Identifier: Apache-2.0
// Machine is a protected machine without its processes: a disk, the writes under way to it, and
// the pinned memory of the tracker. It is a value: a copy is a snapshot or a clone.
// The disk is a row of cells, four to a block; a cell's content is a version number repeated, 0 is
// zeroes. A write is submitted (mark), changes its cells one by one, and completes (mark), as the
// eBPF tracker sees it; of an ordered machine, as the driver dm_cbt does, whose memory and meta
// device are the producer's. There a write may also fail, or hang and end much later.
// Callers: one thread.
#pragma once

#include <map>
#include <vector>

#include "tests/cbt_producer.h"
#include "tests/memory_tracker.h"
#include "tests/sim/history.h"
#include "tests/sim/random.h"
#include "user/base/bytes.h"

namespace herald::sim {

constexpr uint64_t kBlockBytes = HERALD_BLOCK_BYTES;
constexpr uint64_t kCellsPerBlock = 4;
constexpr uint64_t kCellBytes = kBlockBytes / kCellsPerBlock;

using Cells = std::vector<uint64_t>;

inline uint64_t cells_of(uint64_t bytes) { return (bytes + kCellBytes - 1) / kCellBytes; }

struct Machine {
    explicit Machine(uint64_t bytes)
        : disk_bytes(bytes),
          cells(cells_of(bytes)),
          pinned((bytes + kBlockBytes - 1) / kBlockBytes) {}
    // With the content that the disk has by now.
    void make_ordered(Random& random);

    struct Write {
        uint64_t block = 0;
        bool fails = false;
        bool hangs = false;
        uint64_t time_ns = 0;  // of its submission, by the driver's clock
        uint64_t driver_id = 0;
        uint64_t first = 0;  // cells
        uint64_t count = 0;
        std::map<uint64_t, uint64_t> left;  // cell -> version, not on the disk yet
    };

    uint64_t disk_bytes;
    Cells cells;
    test::Pinned pinned;
    std::map<uint64_t, Write> writes;
    uint64_t next_write = 1;
    bool frozen = false;
    bool events_lost = false;  // counted in the pinned memory, weighed by the next drain
    bool ordered = false;
    test::CbtProducer producer;
    OwnHistory history{nullptr};

    uint64_t blocks() const { return pinned.blocks; }
    // What outlives the process.
    bool dirty(uint64_t block) const {
        return ordered ? producer.disk(0).is_dirty(block) : pinned.dirty(block);
    }
    bool has_gap() const {
        return ordered ? producer.disk(0).gap != HERALD_CBT_CAUSE_NONE : pinned.gap.has_value();
    }
    tracker::Continuity continuity() const;
    // One step of one write; new ones begin unless frozen. `version` is used by a new one.
    void step_writes(Random& random, uint64_t& version, bool may_begin);
    bool being_written(uint64_t block) const;
    // Power is lost and comes back: the pinned memory is gone, writes in flight may or may not
    // have reached the disk.
    void reboot(Random& random);
    // The tracker misses a write altogether, and knows that it missed something.
    void lose_events(Random& random, uint64_t& version);

  private:
    void begin_write(Random& random, uint64_t& version);
    bool submit_ordered(Write& write, Random& random);
    void complete_ordered(Write& write);
    void advance(uint64_t id, Random& random);
};

class MachineTracker : public test::MemoryTracker {
  public:
    explicit MachineTracker(Machine& machine) : MemoryTracker(machine.pinned), machine_(machine) {}
    Result<void> drain() override {
        weigh_losses();
        return MemoryTracker::drain();
    }
    Result<void> end_pass() override {
        weigh_losses();
        return MemoryTracker::end_pass();
    }

  private:
    // Not while a gap is open: the compare that answers it may have begun before the loss.
    void weigh_losses() {
        if (!machine_.events_lost || machine_.pinned.gap) return;
        machine_.pinned.gap = "events were lost";
        machine_.events_lost = false;
    }
    Machine& machine_;
};

// The bytes of cells from `first` on, as they lie on a disk of this size.
Bytes expand(std::span<const uint64_t> versions, uint64_t first, uint64_t disk_bytes);
// The version whose content these bytes are; a Violation when there is none.
uint64_t collapse(ByteView cell);

}  // namespace herald::sim
