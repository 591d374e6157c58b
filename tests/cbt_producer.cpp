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

template <class T>
T* sized(void* argument) {
    auto* typed = static_cast<T*>(argument);
    return typed->size == sizeof(T) ? typed : nullptr;
}

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

class ProducerPort : public tracker::CbtPort {
  public:
    ProducerPort(CbtProducer& producer, uint64_t port) : producer_(producer), port_(port) {}
    ~ProducerPort() override {
        if (CbtProducerDisk* disk = producer_.owned(port_)) disk->owner = 0;
    }
    int call(unsigned long request, void* argument) override {
        return producer_.call(port_, request, argument);
    }
    Result<ByteView> map(uint64_t offset, uint64_t bytes) override {
        CbtProducerDisk* const disk = producer_.owned(port_);
        if (!disk) return fail_errno(EACCES, "mmap");
        ByteView area = disk->payload;
        if (offset == HERALD_CBT_MMAP_HEADER) area = std::as_bytes(std::span(disk->header));
        if (offset == HERALD_CBT_MMAP_SLOTS) area = std::as_bytes(std::span(disk->slots));
        if (bytes > area.size()) return fail_errno(EINVAL, "mmap");
        return area.first(bytes);
    }
    bool wait(std::chrono::milliseconds) override { return true; }

  private:
    CbtProducer& producer_;
    uint64_t port_;
};

Result<tracker::CbtDevice> CbtProducer::open() {
    return tracker::CbtDevice(std::make_unique<ProducerPort>(*this, next_port_++));
}

CbtProducerDisk* CbtProducer::find(herald_cbt_disk_abi device) {
    return device.major == 253 && device.minor < disks_.size() ? &disks_[device.minor] : nullptr;
}

CbtProducerDisk* CbtProducer::owned(uint64_t port) {
    const auto found = std::find_if(disks_.begin(), disks_.end(),
                                    [&](const auto& disk) { return disk.owner == port; });
    return found == disks_.end() ? nullptr : &*found;
}

int CbtProducer::call(uint64_t port, unsigned long request, void* argument) {
    switch (request) {
        case HERALD_CBT_INFO: {
            auto* info = sized<herald_cbt_info_abi>(argument);
            if (!info) return -EINVAL;
            info->version = HERALD_CBT_ABI_VERSION;
            info->disks = uint32_t(disks_.size());
            info->time_ns = next_time();
            return 0;
        }
        case HERALD_CBT_LIST: {
            auto* list = sized<herald_cbt_list_abi>(argument);
            if (!list) return -EINVAL;
            list->count = uint32_t(disks_.size());
            auto* rows = std::bit_cast<herald_cbt_row_abi*>(uintptr_t(list->rows));
            for (uint32_t i = 0; i < std::min(list->count, list->capacity); ++i) {
                rows[i] = {};
                rows[i].disk = device(i);
                rows[i].sectors = disks_[i].sectors;
                rows[i].mode = disks_[i].mode.mode;
                rows[i].mode_cause = disks_[i].mode.cause;
                rows[i].owned = disks_[i].owner != 0;
                rows[i].gap = disks_[i].gap;
                rows[i].persistence = HERALD_CBT_PERSISTENCE_ACTIVE;
            }
            return 0;
        }
        case HERALD_CBT_OWN: {
            auto* own = sized<herald_cbt_own_abi>(argument);
            if (!own) return -EINVAL;
            CbtProducerDisk* const disk = find(own->disk);
            if (!disk) return -ENODEV;
            if (disk->owner != 0 || owned(port)) return -EBUSY;
            disk->owner = port;
            cbt_generations_owner(&disk->generations, disk->ring.tail);
            climb(*disk);
            disk->publish();
            own->slots = disk->slots.size();
            own->payload_bytes = disk->payload.size();
            own->tail = disk->ring.tail;
            own->head = disk->ring.head;
            own->stored = disk->generations.stored;
            own->sectors = disk->sectors;
            return 0;
        }
        case HERALD_CBT_RELEASE: {
            auto* release = sized<herald_cbt_release_abi>(argument);
            CbtProducerDisk* const disk = owned(port);
            if (!release || !disk) return -EINVAL;
            if (release->drained < release->released || release->drained > disk->ring.head ||
                !cbt_ring_release(&disk->ring, release->released, disk->pin())) {
                return -ERANGE;
            }
            climb(*disk);
            return 0;
        }
        case HERALD_CBT_ACK: {
            auto* ack = sized<herald_cbt_ack_abi>(argument);
            CbtProducerDisk* const disk = owned(port);
            if (!ack || !disk) return -EINVAL;
            cbt_generations& generations = disk->generations;
            if (!cbt_generations_acknowledge(&generations, ack->received, ack->stored,
                                             disk->first_reserved())) {
                return -ERANGE;
            }
            if ((ack->flags & HERALD_CBT_ACK_SCANNED) != 0 &&
                !cbt_generations_scanned(&generations, ack->scanned)) {
                return -EINVAL;
            }
            if ((ack->flags & HERALD_CBT_ACK_GAP_CLOSED) != 0) disk->gap = HERALD_CBT_CAUSE_NONE;
            disk->publish();
            ack->sealed_generation = generations.sealed;
            ack->sealed_slot = generations.sealed_slot;
            ack->sealed_flags = generations.sealed_flags;
            ack->current_flags = generations.current_flags;
            return 0;
        }
        case HERALD_CBT_TAG_DISKS: {
            auto* tag = sized<herald_cbt_tag_abi>(argument);
            if (!tag || tag->disks == 0 || tag->disks > HERALD_CBT_DISKS_PER_CALL_MAX) {
                return -EINVAL;
            }
            tag->time_ns = next_time();
            bool all = true;
            const auto answer_of = [&](herald_cbt_answer_abi& answer) {
                CbtProducerDisk* const disk = find(answer.disk);
                answer.result = HERALD_CBT_REFUSED;
                answer.cause = HERALD_CBT_CAUSE_NO_DISK;
                if (!disk) return;
                answer.cause = HERALD_CBT_CAUSE_NO_SLOT;
                if (disk->mode.mode == HERALD_CBT_MODE_MAP ||
                    cbt_ring_slots_free(&disk->ring) == 0) {
                    return;
                }
                const bool ordered = disk->mode.mode == HERALD_CBT_MODE_ORDERED;
                answer.result = ordered ? HERALD_CBT_LANDED : HERALD_CBT_DOWNGRADED;
                answer.cause = ordered ? HERALD_CBT_CAUSE_NONE : HERALD_CBT_CAUSE_NOT_ORDERED;
                if (ordered && (disk->gap != HERALD_CBT_CAUSE_NONE ||
                                cbt_generations_scan_due(&disk->generations))) {
                    answer.result = HERALD_CBT_DOWNGRADED;
                    answer.cause = HERALD_CBT_CAUSE_SCAN_DUE;
                }
            };
            for (uint32_t i = 0; i < tag->disks; ++i) {
                answer_of(tag->answers[i]);
                all = all && tag->answers[i].result == HERALD_CBT_LANDED;
            }
            for (uint32_t i = 0; i < tag->disks; ++i) {
                herald_cbt_answer_abi& answer = tag->answers[i];
                if (!all && (tag->flags & HERALD_CBT_TAG_ALL) != 0 &&
                    answer.result != HERALD_CBT_REFUSED) {
                    answer.result = HERALD_CBT_REFUSED;
                }
                if (answer.result == HERALD_CBT_REFUSED) continue;
                cbt_change change{};
                change.kind = HERALD_CBT_TAG;
                change.state = HERALD_CBT_COMMITTED;
                change.id = tag->id;
                if (answer.cause == HERALD_CBT_CAUSE_NOT_ORDERED) {
                    change.flags = HERALD_CBT_SLOT_DOWNGRADED;
                }
                answer.slot = push(*find(answer.disk), change, 0, tag->time_ns);
            }
            return 0;
        }
        case HERALD_CBT_SEAL: {
            auto* seal = sized<herald_cbt_seal_abi>(argument);
            CbtProducerDisk* const disk = seal ? find(seal->disk) : nullptr;
            if (!disk) return -EINVAL;
            if (!cbt_generations_may_seal(&disk->generations, disk->mode.mode, disk->unslotted)) {
                return -EAGAIN;
            }
            this->seal(*disk);
            disk->publish();
            seal->sealed_generation = disk->generations.sealed;
            seal->sealed_slot = disk->generations.sealed_slot;
            seal->sealed_flags = disk->generations.sealed_flags;
            return 0;
        }
        case HERALD_CBT_MAP: {
            auto* map = sized<herald_cbt_map_abi>(argument);
            CbtProducerDisk* const disk = map ? find(map->disk) : nullptr;
            if (!disk || map->first_block % 64 != 0) return -EINVAL;
            const uint64_t blocks = cbt_blocks_of_sectors(disk->sectors);
            map->blocks = std::min<uint64_t>(map->blocks,
                                             blocks - std::min<uint64_t>(blocks, map->first_block));
            auto* words = std::bit_cast<u64*>(uintptr_t(map->buffer));
            for (uint64_t i = 0; i * 64 < map->blocks; ++i) {
                const uint64_t word = map->first_block / 64 + i;
                words[i] = ((map->which & HERALD_CBT_BITMAP_CURRENT) ? disk->current[word] : 0) |
                           ((map->which & HERALD_CBT_BITMAP_SEALED) ? disk->sealed[word] : 0);
            }
            map->generation = map->which == HERALD_CBT_BITMAP_CURRENT
                                  ? disk->generations.current_number
                                  : disk->generations.sealed;
            return 0;
        }
        case HERALD_CBT_MARK: {
            auto* mark = sized<herald_cbt_mark_abi>(argument);
            CbtProducerDisk* const disk = mark ? find(mark->disk) : nullptr;
            if (!disk || mark->sector > disk->sectors ||
                mark->sectors > disk->sectors - mark->sector) {
                return -EINVAL;
            }
            need_scan(*disk, mark->sector, mark->sectors);
            disk->publish();
            return 0;
        }
        case HERALD_CBT_COOKIE: {
            auto* cookie = sized<herald_cbt_cookie_abi>(argument);
            CbtProducerDisk* const disk = cookie ? find(cookie->disk) : nullptr;
            if (!disk || cookie->bytes > HERALD_CBT_COOKIE_BYTES_MAX) return -EINVAL;
            if (!disk->has_meta) return -EOPNOTSUPP;
            auto* bytes = std::bit_cast<std::byte*>(uintptr_t(cookie->buffer));
            if ((cookie->flags & HERALD_CBT_COOKIE_WRITE) != 0) {
                if (disk->owner != port) return -EPERM;
                disk->cookie.assign(bytes, bytes + cookie->bytes);
                return 0;
            }
            cookie->bytes = uint32_t(std::min<size_t>(cookie->bytes, disk->cookie.size()));
            std::copy_n(disk->cookie.begin(), cookie->bytes, bytes);
            return 0;
        }
        case HERALD_CBT_STATS: {
            auto* stats = sized<herald_cbt_stats_abi>(argument);
            CbtProducerDisk* const disk = stats ? find(stats->disk) : nullptr;
            if (!disk) return -EINVAL;
            stats->writes = disk->header[0].writes;
            stats->in_flight = disk->writes.size();
            for (int i = 0; i < 3; ++i) stats->sank[i] = disk->mode.sank[i];
            return 0;
        }
        case HERALD_CBT_CUT: {
            auto* cut = sized<herald_cbt_cut_abi>(argument);
            if (!cut || cut->disks > HERALD_CBT_DISKS_PER_CALL_MAX) return -EINVAL;
            cut->time_ns = next_time();
            for (uint32_t i = 0; i < cut->disks; ++i) {
                CbtProducerDisk* const disk = find(cut->answers[i].disk);
                cut->answers[i].result = disk ? HERALD_CBT_LANDED : HERALD_CBT_REFUSED;
                cut->answers[i].cause = disk ? HERALD_CBT_CAUSE_NONE : HERALD_CBT_CAUSE_NO_DISK;
                if (disk) cut->answers[i].slot = disk->ring.head;
            }
            return 0;
        }
        default:
            return -ENOTTY;
    }
}

}  // namespace herald::test
