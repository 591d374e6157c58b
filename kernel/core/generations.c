// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
#include "generations.h"

void cbt_generations_init(struct cbt_generations* generations) {
    __builtin_memset(generations, 0, sizeof(*generations));
    generations->current_number = 1;
    generations->current_flags = HERALD_CBT_GENERATION_EXISTS;
}

bool cbt_generations_may_seal(const struct cbt_generations* generations, u32 mode, u64 unslotted) {
    if (generations->sealed != 0) return false;
    if (!(generations->current_flags & HERALD_CBT_GENERATION_NEEDS_SCAN)) return true;
    return mode != HERALD_CBT_MODE_MAP && unslotted == 0;
}

void cbt_generations_seal(struct cbt_generations* generations, u64 head) {
    generations->sealed = generations->current_number;
    generations->sealed_flags = generations->current_flags;
    generations->sealed_slot = head;
    generations->scanned = false;
    generations->current_number++;
    generations->current_flags = HERALD_CBT_GENERATION_EXISTS;
}

bool cbt_generations_acknowledge(struct cbt_generations* generations, u64 received, u64 stored,
                                 u64 head) {
    if (stored > received || received > head || received < generations->received ||
        stored < generations->stored)
        return false;
    generations->received = received;
    generations->stored = stored;
    return true;
}

bool cbt_generations_scanned(struct cbt_generations* generations, u64 generation) {
    if (generation == 0 || generation != generations->sealed) return false;
    generations->scanned = true;
    return true;
}

bool cbt_generations_may_flush(const struct cbt_generations* generations) {
    if (generations->sealed == 0 || (generations->sealed_flags & HERALD_CBT_GENERATION_CLEARING))
        return false;
    if (generations->stored < generations->sealed_slot) return false;
    return generations->scanned || !(generations->sealed_flags & HERALD_CBT_GENERATION_NEEDS_SCAN);
}

void cbt_generations_flushing(struct cbt_generations* generations) {
    generations->sealed_flags |= HERALD_CBT_GENERATION_CLEARING;
}

void cbt_generations_flush_failed(struct cbt_generations* generations) {
    generations->sealed_flags &= ~HERALD_CBT_GENERATION_CLEARING;
}

void cbt_generations_cleared(struct cbt_generations* generations) {
    generations->sealed = 0;
    generations->sealed_flags = 0;
    generations->scanned = false;
}

void cbt_generations_owner(struct cbt_generations* generations, u64 tail) {
    if (tail > generations->stored) {
        cbt_generations_need_scan(generations);
        /* Those of a sealed generation cannot be told apart any more: it is scanned too. */
        if (generations->sealed != 0 && generations->stored < generations->sealed_slot) {
            generations->sealed_flags |= HERALD_CBT_GENERATION_NEEDS_SCAN;
            generations->scanned = false;
        }
        generations->stored = tail;
    }
    /* What an owner received and did not store died with it. */
    generations->received = generations->stored;
}
