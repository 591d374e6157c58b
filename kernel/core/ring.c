// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
#include "ring.h"

CBT_STATIC_ASSERT(slot_size, sizeof(struct herald_cbt_slot_abi) == 64);
CBT_STATIC_ASSERT(header_size, sizeof(struct herald_cbt_header_abi) == 4096);
CBT_STATIC_ASSERT(header_head, __builtin_offsetof(struct herald_cbt_header_abi, head) == 128);
CBT_STATIC_ASSERT(header_mode_since,
                  __builtin_offsetof(struct herald_cbt_header_abi, mode_since_ns) == 192);
CBT_STATIC_ASSERT(header_stored, __builtin_offsetof(struct herald_cbt_header_abi, stored) == 256);

void cbt_ring_init(struct cbt_ring* ring, struct herald_cbt_header_abi* header,
                   struct herald_cbt_slot_abi* slots, u64 slot_count, u64 payload_bytes) {
    __builtin_memset(ring, 0, sizeof(*ring));
    ring->header = header;
    ring->slots = slots;
    ring->slot_count = slot_count;
    ring->payload_bytes = payload_bytes;
    header->magic = HERALD_CBT_HEADER_MAGIC;
    header->version = HERALD_CBT_ABI_VERSION;
    header->header_bytes = sizeof(*header);
    header->slot_bytes = sizeof(*slots);
    header->slots = slot_count;
    header->payload_bytes = payload_bytes;
}

void cbt_ring_unpin(struct cbt_ring* ring, u64 pin) {
    u64 to = pin < ring->payload_released ? pin : ring->payload_released;

    if (to > ring->payload_tail) {
        ring->payload_tail = to;
        cbt_store(&ring->header->payload_tail, to);
    }
}

bool cbt_ring_release(struct cbt_ring* ring, u64 to, u64 pin) {
    u64 number;

    if (to < ring->tail || to > ring->head) return false;
    for (number = ring->tail; number < to; number++)
        if (cbt_load_acquire(&cbt_ring_slot(ring, number)->state) == HERALD_CBT_RESERVED)
            return false;
    if (to > ring->tail) {
        const struct herald_cbt_slot_abi* last = cbt_ring_slot(ring, to - 1);

        ring->payload_released = last->payload + last->payload_bytes;
        ring->tail = to;
        cbt_store(&ring->header->tail, to);
    }
    cbt_ring_unpin(ring, pin);
    return true;
}
