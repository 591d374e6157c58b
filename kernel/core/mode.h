/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * How a disk's new writes are tracked: ordered, extents or map, and why.
 * Promise: the first reservation that fails latches the mode, and nothing is recorded in a higher
 * one before a climb; so no later write slips in behind one that was lost. A climb needs half of
 * what was lacking to be free again, so that the mode does not flap. Callers: under the disk's ring
 * lock.
 */
#ifndef HERALD_CORE_MODE_H
#define HERALD_CORE_MODE_H

#include "ring.h"

struct cbt_mode {
    u32 mode;
    u32 cause;
    u64 since_ns;
    u64 spent_ns[3]; /* in map, extents, ordered, without the time since since_ns */
    u64 sank[3];
    u64 climbed;
};

void cbt_mode_init(struct cbt_mode* mode, u32 first, u32 cause, u64 now_ns);

/* Down to `to`; false when the mode is not above it. */
bool cbt_mode_sink(struct cbt_mode* mode, u32 to, u32 cause, u64 now_ns);

/* The mode that a climb would reach now: the present one when there is none. */
u32 cbt_mode_reachable(const struct cbt_mode* mode, const struct cbt_ring* ring);

void cbt_mode_climb(struct cbt_mode* mode, u32 to, u64 now_ns);

#endif
