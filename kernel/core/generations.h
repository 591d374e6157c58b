/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The two generations of the dirty map: `current` takes the bits of new writes, `sealed` waits for
 * the reader's word that all it covers is stored. Promise: the sealed bits may go only when (1)
 * every slot before the sealing is stored, (2) where it needs a scan, the reader scanned it, and
 * (3) a flush of the disk that was issued after both has completed. A generation that needs a scan
 * is sealed only when no write is in flight that has no slot: such a write could reach the disk
 * after the scan has read its blocks. Callers: under the disk's ring lock.
 */
#ifndef HERALD_CORE_GENERATIONS_H
#define HERALD_CORE_GENERATIONS_H

#include "../../include/herald/abi/cbt.h"
#include "types.h"

struct cbt_generations {
    u64 current_number; /* numbers begin with 1 */
    u64 sealed;         /* 0: none */
    u64 sealed_slot;
    u64 received; /* slots before it */
    u64 stored;
    u32 current_flags;
    u32 sealed_flags;
    bool scanned;
};

void cbt_generations_init(struct cbt_generations* generations);

static inline void cbt_generations_need_scan(struct cbt_generations* generations) {
    generations->current_flags |= HERALD_CBT_GENERATION_NEEDS_SCAN;
}

/* `unslotted`: writes in flight without a slot. */
bool cbt_generations_may_seal(const struct cbt_generations* generations, u32 mode, u64 unslotted);

/* Blocks are to be read before the slots say all that was written. */
static inline bool cbt_generations_scan_due(const struct cbt_generations* generations) {
    return (generations->current_flags & HERALD_CBT_GENERATION_NEEDS_SCAN) ||
           ((generations->sealed_flags & HERALD_CBT_GENERATION_NEEDS_SCAN) &&
            !generations->scanned);
}

/* The caller swaps the bitmaps in the same critical section. */
void cbt_generations_seal(struct cbt_generations* generations, u64 head);

/* Positions of an acknowledgement; false, and nothing done, when they are not sane. */
bool cbt_generations_acknowledge(struct cbt_generations* generations, u64 received, u64 stored,
                                 u64 released_or_head);

bool cbt_generations_scanned(struct cbt_generations* generations, u64 generation);

/* A flush may be issued now, after which the sealed bits may go. */
bool cbt_generations_may_flush(const struct cbt_generations* generations);

/* Between may_flush and the flush's end. */
void cbt_generations_flushing(struct cbt_generations* generations);

/* The flush failed: later again. */
void cbt_generations_flush_failed(struct cbt_generations* generations);

/* The bits are gone. */
void cbt_generations_cleared(struct cbt_generations* generations);

/* A new owner: what the last one released and did not store is known only by its bits. */
void cbt_generations_owner(struct cbt_generations* generations, u64 tail);

#endif
