// SPDX-License-Identifier: Apache-2.0
#include "tests/cbt_producer.h"

#include <algorithm>
#include <bit>
#include <cerrno>

namespace herald::test {

namespace {

// The header page is 4096 bytes of shared memory; here it is a plain structure.
herald_cbt_header_abi new_header() {
    herald_cbt_header_abi header{};
    header.activation = 1;
    return header;
}

cbt_bitmap bitmap_of(std::vector<u64>& words, uint64_t sectors) {
    return {words.data(), cbt_blocks_of_sectors(sectors), 0, words.size()};
}

void set(std::vector<u64>& words, uint64_t disk_sectors, uint64_t sector, uint64_t sectors) {
    cbt_bitmap bitmap = bitmap_of(words, disk_sectors);
    cbt_bitmap_set_sectors(&bitmap, sector, sectors);
}

bool any(const std::vector<u64>& words) {
    return std::any_of(words.begin(), words.end(), [](u64 word) { return word != 0; });
}

uint64_t words_of(uint64_t sectors) { return cbt_bitmap_words(cbt_blocks_of_sectors(sectors)); }

}  // namespace

CbtProducerDisk::CbtProducerDisk(uint64_t sector_count, uint64_t slot_count, uint64_t payload_size)
    : sectors(sector_count),
      header(1, new_header()),
      slots(slot_count),
      payload(payload_size),
      current(words_of(sector_count)),
      sealed(words_of(sector_count)) {
    activate();
}

CbtProducerDisk& CbtProducerDisk::operator=(const CbtProducerDisk& other) {
    sectors = other.sectors;
    header = other.header;
    slots = other.slots;
    payload = other.payload;
    ring = other.ring;
    mode = other.mode;
    generations = other.generations;
    current = other.current;
    sealed = other.sealed;
    cookie = other.cookie;
    has_meta = other.has_meta;
    gap = other.gap;
    events = other.events;
    writes = other.writes;
    unslotted = other.unslotted;
    owner = 0;
    bind();
    return *this;
}

void CbtProducerDisk::bind() {
    ring.header = header.data();
    ring.slots = slots.data();
}

void CbtProducerDisk::activate() {
    cbt_ring_init(&ring, header.data(), slots.data(), slots.size(), payload.size());
    header[0].head = header[0].tail = header[0].payload_head = header[0].payload_tail = 0;
    header[0].features = HERALD_CBT_FEATURE_BOUNCE | HERALD_CBT_FEATURE_META |
                         (payload.empty() ? 0 : HERALD_CBT_FEATURE_PAYLOAD);
    cbt_mode_init(&mode, HERALD_CBT_MODE_MAP, HERALD_CBT_CAUSE_ACTIVATED, 0);
    cbt_generations_init(&generations);
    writes.clear();
    unslotted = 0;
    owner = 0;
    publish();
}

void CbtProducerDisk::publish() {
    herald_cbt_header_abi& page = header[0];
    const uint32_t before[] = {page.mode, page.gap, page.current_flags, page.sealed_flags};
    page.mode = mode.mode;
    page.mode_cause = mode.cause;
    page.gap = gap;
    page.sectors = sectors;
    page.sealed_generation = generations.sealed;
    page.sealed_slot = generations.sealed_slot;
    page.sealed_flags = generations.sealed_flags;
    page.current_flags = generations.current_flags;
    page.current_generation = generations.current_number;
    page.received = generations.received;
    page.stored = generations.stored;
    page.persistence = persistence;
    const uint32_t after[] = {page.mode, page.gap, page.current_flags, page.sealed_flags};
    if (!std::equal(std::begin(before), std::end(before), after)) page.events = ++events;
}

bool CbtProducerDisk::is_dirty(uint64_t block) const {
    return ((current[block / 64] | sealed[block / 64]) >> (block % 64)) & 1;
}

uint64_t CbtProducerDisk::pin() const {
    uint64_t pin = CBT_NO_PIN;
    for (const auto& [id, write] : writes) {
        if (write.unresolved) pin = std::min(pin, write.payload);
    }
    return pin;
}

uint64_t CbtProducerDisk::first_reserved() const {
    uint64_t slot = ring.tail;
    while (slot < ring.head && cbt_ring_slot(&ring, slot)->state != HERALD_CBT_RESERVED) ++slot;
    return slot;
}

CbtProducer& CbtProducer::operator=(const CbtProducer& other) {
    wall_ns = other.wall_ns;
    disks_ = other.disks_;
    for (CbtProducerDisk& disk : disks_) disk.owner = 0;
    clock_ = other.clock_;
    next_write_ = other.next_write_;
    // Of no copy a port is known.
    next_port_ = std::max(next_port_, other.next_port_);
    return *this;
}

size_t CbtProducer::add_disk(uint64_t sectors, uint64_t slots, uint64_t payload_bytes) {
    disks_.emplace_back(sectors, slots, payload_bytes);
    return disks_.size() - 1;
}

uint64_t CbtProducer::push(CbtProducerDisk& disk, const cbt_change& change, uint64_t payload,
                           uint64_t time_ns) {
    return cbt_ring_push(&disk.ring, &change, payload, time_ns);
}

bool CbtProducer::parks(size_t number, uint64_t sector, uint64_t sectors) const {
    return std::any_of(
        disks_[number].writes.begin(), disks_[number].writes.end(), [&](const auto& each) {
            const CbtProducerDisk::Write& write = each.second;
            return write.sector < sector + sectors && sector < write.sector + write.sectors;
        });
}

void CbtProducer::need_scan(CbtProducerDisk& disk, uint64_t sector, uint64_t sectors) {
    set(disk.current, disk.sectors, sector, sectors);
    cbt_generations_need_scan(&disk.generations);
}

CbtProducer::Submitted CbtProducer::submit(size_t number, herald_cbt_kind kind, uint64_t sector,
                                           uint64_t sectors, ByteView data) {
    CbtProducerDisk& disk = disks_[number];
    HERALD_ASSERT(!parks(number, sector, sectors) && sector + sectors <= disk.sectors);
    // The bits first: from here on the write may reach the disk at any time.
    set(disk.current, disk.sectors, sector, sectors);
    CbtProducerDisk::Write write;
    write.sector = sector;
    write.sectors = sectors;
    const uint64_t time = next_time();
    u64 at = 0;
    if (disk.mode.mode == HERALD_CBT_MODE_ORDERED && kind == HERALD_CBT_WRITE &&
        !cbt_ring_payload_fits(&disk.ring, u32(data.size()), 512, &at)) {
        cbt_mode_sink(&disk.mode, HERALD_CBT_MODE_EXTENTS, HERALD_CBT_CAUSE_PAYLOAD_FULL, time);
    }
    if (disk.mode.mode != HERALD_CBT_MODE_MAP && cbt_ring_slots_free(&disk.ring) == 0) {
        cbt_mode_sink(&disk.mode, HERALD_CBT_MODE_MAP, HERALD_CBT_CAUSE_SLOTS_FULL, time);
    }
    if (disk.mode.mode == HERALD_CBT_MODE_MAP) {
        cbt_generations_need_scan(&disk.generations);
        ++disk.unslotted;
    } else {
        cbt_change change{};
        change.kind = uint16_t(kind);
        change.state = HERALD_CBT_RESERVED;
        change.sector = sector;
        change.sectors = uint32_t(sectors);
        if (kind == HERALD_CBT_WRITE && disk.mode.mode == HERALD_CBT_MODE_ORDERED) {
            change.payload_bytes = uint32_t(data.size());
            std::memcpy(disk.payload.data() + (at & (disk.payload.size() - 1)), data.data(),
                        data.size());
            write.payload = at;
        }
        write.slot = push(disk, change, at, time);
    }
    disk.header[0].writes++;
    disk.publish();
    const uint64_t id = next_write_++;
    disk.writes[id] = write;
    return {id, time};
}

uint64_t CbtProducer::complete(size_t number, uint64_t id, bool ok) {
    CbtProducerDisk& disk = disks_[number];
    const CbtProducerDisk::Write write = disk.writes.at(id);
    disk.writes.erase(id);
    if (!write.slot) {
        --disk.unslotted;
    } else if (!write.unresolved) {
        cbt_slot_commit(cbt_ring_slot(&disk.ring, *write.slot),
                        ok ? HERALD_CBT_COMMITTED : HERALD_CBT_ABORTED, 0);
    } else {
        // The reader may have scanned its blocks before: whatever is submitted from here on has a
        // higher slot than the one that says so.
        need_scan(disk, write.sector, write.sectors);
        if (disk.mode.mode != HERALD_CBT_MODE_MAP && cbt_ring_slots_free(&disk.ring) > 0) {
            cbt_change change{};
            change.kind = HERALD_CBT_REREAD;
            change.state = HERALD_CBT_COMMITTED;
            change.sector = write.sector;
            change.sectors = uint32_t(write.sectors);
            push(disk, change, 0, next_time());
        } else {
            cbt_mode_sink(&disk.mode, HERALD_CBT_MODE_MAP, HERALD_CBT_CAUSE_SLOTS_FULL, clock_);
        }
        cbt_ring_unpin(&disk.ring, disk.pin());
    }
    disk.publish();
    return next_time();
}

void CbtProducer::give_up_waiting(size_t number, uint64_t id) {
    CbtProducerDisk& disk = disks_[number];
    CbtProducerDisk::Write& write = disk.writes.at(id);
    if (!write.slot || write.unresolved) return;
    write.unresolved = true;
    need_scan(disk, write.sector, write.sectors);
    cbt_slot_commit(cbt_ring_slot(&disk.ring, *write.slot), HERALD_CBT_UNRESOLVED, 0);
    disk.publish();
}

void CbtProducer::climb(CbtProducerDisk& disk) {
    const uint32_t to =
        disk.owner == 0 ? disk.mode.mode : cbt_mode_reachable(&disk.mode, &disk.ring);
    if (to == disk.mode.mode) return;
    cbt_change change{};
    change.kind = HERALD_CBT_MODE;
    change.state = HERALD_CBT_COMMITTED;
    change.sectors = disk.mode.mode;
    change.argument = to;
    const uint64_t time = next_time();
    push(disk, change, 0, time);
    cbt_mode_climb(&disk.mode, to, time);
    disk.publish();
}

void CbtProducer::tick(size_t number) {
    CbtProducerDisk& disk = disks_[number];
    climb(disk);
    if (cbt_generations_may_flush(&disk.generations)) {
        cbt_generations_flushing(&disk.generations);
        std::fill(disk.sealed.begin(), disk.sealed.end(), 0);
        cbt_generations_cleared(&disk.generations);
    }
    const bool due = any(disk.current) && disk.mode.mode != HERALD_CBT_MODE_MAP;
    if (due && cbt_generations_may_seal(&disk.generations, disk.mode.mode, disk.unslotted)) {
        seal(disk);
    }
    disk.publish();
}

// What hangs may reach the disk at any time, also after the sealed blocks were scanned and their
// bits are gone, and without completing when the power goes: it stays in the map.
void CbtProducer::seal(CbtProducerDisk& disk) {
    std::swap(disk.current, disk.sealed);
    cbt_generations_seal(&disk.generations, disk.ring.head);
    for (const auto& [id, write] : disk.writes) {
        if (write.unresolved) set(disk.current, disk.sectors, write.sector, write.sectors);
    }
}

void CbtProducer::resize(size_t number, uint64_t sectors) {
    CbtProducerDisk& disk = disks_[number];
    const uint64_t before = std::exchange(disk.sectors, sectors);
    disk.current.resize(words_of(sectors));
    disk.sealed.resize(words_of(sectors));
    if (sectors > before) need_scan(disk, before, sectors - before);
    cbt_change change{};
    change.kind = HERALD_CBT_RESIZE;
    change.state = HERALD_CBT_COMMITTED;
    change.sector = sectors;
    change.argument = before;
    if (disk.mode.mode != HERALD_CBT_MODE_MAP && cbt_ring_slots_free(&disk.ring) > 0) {
        push(disk, change, 0, next_time());
    }
    disk.publish();
}

void CbtProducer::power_cut(size_t number, uint32_t gap) {
    CbtProducerDisk& disk = disks_[number];
    for (size_t i = 0; i < disk.current.size(); ++i) disk.current[i] |= disk.sealed[i];
    std::fill(disk.sealed.begin(), disk.sealed.end(), 0);
    ++disk.header[0].activation;
    disk.gap = gap;
    if (gap != HERALD_CBT_CAUSE_NONE) {
        std::fill(disk.current.begin(), disk.current.end(), 0);
        disk.cookie.clear();
    }
    disk.activate();
    if (any(disk.current)) cbt_generations_need_scan(&disk.generations);
    disk.publish();
}

}  // namespace herald::test
