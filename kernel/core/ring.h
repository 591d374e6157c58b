/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The change ring of one disk: fixed slots, and a payload area that slots point into.
 * Promise: the reader sees slots in the order in which they were pushed; a slot that it sees is
 * whole; payload that it may read is not overwritten before it released the slot, nor before the
 * device is done with it (pins). Callers: every function but cbt_slot_commit under the disk's ring
 * lock; cbt_slot_commit by the one that pushed the slot, once, on any CPU. One reader, in another
 * address space. Owns nothing: the areas are the caller's. `head` and the others here are the
 * truth; the header page has copies for the reader. Failure: a reservation that finds no room
 * changes nothing.
 */
#ifndef HERALD_CORE_RING_H
#define HERALD_CORE_RING_H

#include "../../include/herald/abi/cbt.h"
#include "types.h"

struct cbt_ring {
    struct herald_cbt_header_abi* header;
    struct herald_cbt_slot_abi* slots;
    u64 slot_count;    /* a power of two */
    u64 payload_bytes; /* a power of two, or 0: no payload */
    u64 head;          /* the next slot */
    u64 tail;          /* the oldest slot that is not released */
    u64 payload_head;
    u64 payload_tail;
    u64 payload_released; /* end of the newest released slot's payload; payload_tail may lag for
                             pins */
};

/* What a new slot says; the ring adds place and time. */
struct cbt_change {
    u64 sector;
    u64 argument;
    u32 sectors;
    u32 payload_bytes;
    u32 state;
    u16 kind;
    u16 flags;
    const u8* id; /* 16 bytes, or NULL */
};

#define CBT_NO_PIN (~0ull)

void cbt_ring_init(struct cbt_ring* ring, struct herald_cbt_header_abi* header,
                   struct herald_cbt_slot_abi* slots, u64 slot_count, u64 payload_bytes);

static inline struct herald_cbt_slot_abi* cbt_ring_slot(const struct cbt_ring* ring, u64 number) {
    return &ring->slots[number & (ring->slot_count - 1)];
}

static inline u64 cbt_ring_slots_free(const struct cbt_ring* ring) {
    return ring->slot_count - (ring->head - ring->tail);
}

static inline u64 cbt_ring_payload_free(const struct cbt_ring* ring) {
    return ring->payload_bytes - (ring->payload_head - ring->payload_tail);
}

/*
 * Where `bytes` of payload, of which there are some, would start: a multiple of `alignment` (a
 * power of two) that does not wrap. False: no room, as always in a ring without payload. Nothing is
 * taken until the push.
 */
static inline bool cbt_ring_payload_fits(const struct cbt_ring* ring, u32 bytes, u32 alignment,
                                         u64* start) {
    u64 size = ring->payload_bytes;
    u64 at = (ring->payload_head + alignment - 1) & ~((u64)alignment - 1);

    /* What would wrap starts at the ring's start instead; the rest stays unused this time around.
     */
    if ((at & (size - 1)) + bytes > size) at = (at + size - 1) & ~(size - 1);
    if (at + bytes - ring->payload_tail > size) return false;
    *start = at;
    return true;
}

/*
 * Takes a slot, of which there must be one, fills it and makes it visible. Its number. Inline: what
 * the caller writes to `change` goes straight into the slot.
 */
static inline u64 cbt_ring_push(struct cbt_ring* ring, const struct cbt_change* change, u64 payload,
                                u64 time_ns) {
    u64 number = ring->head;
    struct herald_cbt_slot_abi* slot = cbt_ring_slot(ring, number);

    slot->time_ns = time_ns;
    slot->sector = change->sector;
    /* Without payload too, so that the newest released slot says how far payload is released. */
    slot->payload = change->payload_bytes ? payload : ring->payload_head;
    slot->sectors = change->sectors;
    slot->payload_bytes = change->payload_bytes;
    cbt_store(&slot->state, change->state);
    slot->kind = change->kind;
    slot->flags = change->flags;
    slot->argument = change->argument;
    if (change->id) {
        __builtin_memcpy(slot->id, change->id, sizeof(slot->id));
    } else {
        __builtin_memcpy(slot->id, &number, sizeof(number));
        __builtin_memset(slot->id + sizeof(number), 0, sizeof(slot->id) - sizeof(number));
    }
    if (change->payload_bytes) {
        ring->payload_head = payload + change->payload_bytes;
        cbt_store(&ring->header->payload_head, ring->payload_head);
    }
    ring->head = number + 1;
    /* Release; pairs with the reader's acquire of head: it sees the slot whole, and reserved. */
    cbt_store_release(&ring->header->head, ring->head);
    return number;
}

/* Release; pairs with the reader's acquire of `state`. */
static inline void cbt_slot_commit(struct herald_cbt_slot_abi* slot, u32 state, u16 more_flags) {
    slot->flags |= more_flags;
    cbt_store_release(&slot->state, state);
}

/*
 * Gives back the slots before `to`, and the payload before `pin` (CBT_NO_PIN for none). False, and
 * nothing done: `to` is outside [tail, head], or would pass a slot that is still reserved.
 */
bool cbt_ring_release(struct cbt_ring* ring, u64 to, u64 pin);

/* A pin went: gives back what it held. */
void cbt_ring_unpin(struct cbt_ring* ring, u64 pin);

#endif
