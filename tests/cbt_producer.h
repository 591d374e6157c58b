// SPDX-License-Identifier: Apache-2.0
// CbtProducer is the driver dm_cbt in user space: kernel/core and the ABI's structures over plain
// memory, so that whatever reads the driver can be tested, measured and simulated without it.
// Promise: decides with kernel/core what the driver decides with it; a write is submit() -> the
// data changes -> complete(). It is a value: a copy is a machine's snapshot or clone, with no
// owners. The disk's cache is taken for durable: a flush succeeds at once, in tick(). Callers: one
// thread. Ports borrow the producer.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "user/tracker/cbt_device.h"

extern "C" {
#include "kernel/core/bitmap.h"
#include "kernel/core/clock.h"
#include "kernel/core/generations.h"
#include "kernel/core/mode.h"
#include "kernel/core/ring.h"
}

namespace herald::test {

struct CbtProducerDisk {
    CbtProducerDisk(uint64_t sector_count, uint64_t slot_count, uint64_t payload_size);
    CbtProducerDisk(const CbtProducerDisk& other) { *this = other; }
    CbtProducerDisk& operator=(const CbtProducerDisk& other);

    struct Write {
        uint64_t sector = 0;
        uint64_t sectors = 0;
        std::optional<uint64_t> slot;
        uint64_t payload = CBT_NO_PIN;
        bool unresolved = false;
    };

    // Empty rings, mode map: what an activation begins with.
    void activate();
    void publish();  // to the header page
    bool is_dirty(uint64_t block) const;
    uint64_t pin() const;
    // Slots before it have ended.
    uint64_t first_reserved() const;

    uint64_t sectors = 0;
    std::vector<herald_cbt_header_abi> header;
    std::vector<herald_cbt_slot_abi> slots;
    Bytes payload;
    cbt_ring ring{};
    cbt_mode mode{};
    cbt_generations generations{};
    std::vector<u64> current, sealed;  // bits
    Bytes cookie;
    bool has_meta = true;
    uint32_t persistence = HERALD_CBT_PERSISTENCE_ACTIVE;
    uint32_t gap = HERALD_CBT_CAUSE_META_NEW;
    uint32_t events = 0;
    std::map<uint64_t, Write> writes;  // in flight
    uint64_t unslotted = 0;
    uint64_t owner = 0;  // of a port; 0: none

  private:
    void bind();
};

class CbtProducer {
  public:
    CbtProducer() = default;
    CbtProducer(const CbtProducer& other) { *this = other; }
    CbtProducer& operator=(const CbtProducer& other);

    uint64_t wall_ns = 1'000'000'000;

    // Returns its number; its device is 253:number.
    size_t add_disk(uint64_t sectors, uint64_t slots, uint64_t payload_bytes);
    CbtProducerDisk& disk(size_t number) { return disks_[number]; }
    const CbtProducerDisk& disk(size_t number) const { return disks_[number]; }
    static herald_cbt_disk_abi device(size_t number) { return {253, uint32_t(number)}; }

    // A file of the device. Closing it is what the death of its process does.
    Result<tracker::CbtDevice> open();

    // Whether a write to this range would be parked behind one in flight.
    bool parks(size_t disk, uint64_t sector, uint64_t sectors) const;
    struct Submitted {
        uint64_t id = 0;
        uint64_t time_ns = 0;  // of the submission, with or without a slot
    };
    // data: of a write, sectors * 512 bytes.
    Submitted submit(size_t disk, herald_cbt_kind kind, uint64_t sector, uint64_t sectors,
                     ByteView data = {});
    // Returns the time before which it ended.
    uint64_t complete(size_t disk, uint64_t id, bool ok = true);
    // It takes too long: no longer keeps the reader waiting.
    void give_up_waiting(size_t disk, uint64_t id);
    // What the driver does by timers and after other steps: seals, clears bits, climbs.
    void tick(size_t disk);
    void resize(size_t disk, uint64_t sectors);
    // The power goes and comes back: rings and what is in flight are gone, the meta device says
    // what is dirty. Without one the gap says what happened.
    void power_cut(size_t disk, uint32_t gap = HERALD_CBT_CAUSE_NONE);

    uint64_t next_time() { return cbt_clock_next(&clock_, wall_ns); }

  private:
    friend class ProducerPort;
    int call(uint64_t port, unsigned long request, void* argument);
    CbtProducerDisk* find(herald_cbt_disk_abi device);
    CbtProducerDisk* owned(uint64_t port);
    void climb(CbtProducerDisk& disk);
    void seal(CbtProducerDisk& disk);
    uint64_t push(CbtProducerDisk& disk, const cbt_change& change, uint64_t payload,
                  uint64_t time_ns);
    void need_scan(CbtProducerDisk& disk, uint64_t sector, uint64_t sectors);

    std::deque<CbtProducerDisk> disks_;
    u64 clock_ = 0;
    uint64_t next_write_ = 1;
    uint64_t next_port_ = 1;
};

}  // namespace herald::test
