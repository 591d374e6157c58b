// SPDX-License-Identifier: Apache-2.0
// The ioctls and mappings of the driver, as CbtProducer answers them.
#include <algorithm>
#include <bit>
#include <cerrno>

#include "tests/cbt_producer.h"

namespace herald::test {

namespace {

template <class T>
T* sized(void* argument) {
    auto* typed = static_cast<T*>(argument);
    return typed->size == sizeof(T) ? typed : nullptr;
}

}  // namespace

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
