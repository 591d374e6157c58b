/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The set of hot regions: those whose blocks a power cut may leave dirty without a bit on the meta
 * device. One activity-log block holds the whole set.
 * Promise: a write enters only while its regions are in a durable block, and a region leaves the
 * set only by a durable block without it, which is composed only after the region's bitmap block is
 * durable and while no write to it is in flight. Order of the durable steps: bitmap blocks of what
 * retires  <  activity block without them, with what is added activity block with a region   <  the
 * first write to it Callers: under the disk's activity lock. The caller does the writing and says
 * when it is durable. Owns: nothing; the set is one fixed structure of some 24 KiB.
 *
 * A region's life: free -> added -> writing -> hot -> retiring -> dropping -> free.
 *   added     wanted; not in a block yet
 *   writing   in the block that is being written
 *   hot       in a durable block
 *   retiring  hot, idle, chosen; its bitmap block is being written; a new write makes it hot again
 *   dropping  not in the block that is being written; a new write waits and adds it again
 */
#ifndef HERALD_CORE_ACTIVITY_H
#define HERALD_CORE_ACTIVITY_H

#include "types.h"

/* What one block of 4 KiB holds beside its header: hot_max * region = 4 GiB at most to scan after a
 * cut. */
#define CBT_ACTIVITY_REGIONS_MAX 1007u
#define CBT_ACTIVITY_BUCKETS 512u
/* log2 of sectors: 4 MiB. */
#define CBT_REGION_SECTORS_SHIFT 13

enum cbt_region_state {
    CBT_REGION_FREE = 0,
    CBT_REGION_ADDED = 1,
    CBT_REGION_WRITING = 2,
    CBT_REGION_HOT = 3,
    CBT_REGION_RETIRING = 4,
    CBT_REGION_DROPPING = 5,
};

enum cbt_activity_entry {
    CBT_ACTIVITY_ENTERED = 0, /* go on; leave when the write has completed */
    CBT_ACTIVITY_WAIT = 1,    /* a block must become durable first: enter again after that */
    CBT_ACTIVITY_FULL = 2,    /* likewise, after something retired */
};

struct cbt_region {
    u64 used; /* tick of the newest write */
    u32 number;
    u32 in_flight;
    u16 next; /* in its bucket, or the free list; index + 1, 0 ends */
    u8 state;
    u8 wanted; /* dropping, and a write waits for it */
};

struct cbt_activity {
    u32 capacity;
    u32 used; /* not free */
    u32 added;
    u32 retiring;
    u64 tick;
    u64 hits;
    u64 misses;
    u16 free;
    u16 buckets[CBT_ACTIVITY_BUCKETS];
    struct cbt_region regions[CBT_ACTIVITY_REGIONS_MAX];
};

/* capacity: at most CBT_ACTIVITY_REGIONS_MAX. */
void cbt_activity_init(struct cbt_activity* activity, u32 capacity);

/* What a durable block says already, at activation: hot and idle. */
void cbt_activity_load(struct cbt_activity* activity, const u32* numbers, u32 count);

/* A write to regions [first, first + count). */
enum cbt_activity_entry cbt_activity_enter(struct cbt_activity* activity, u32 first, u32 count);
void cbt_activity_leave(struct cbt_activity* activity, u32 first, u32 count);

/* Chooses up to `want` idle regions, longest unused first; their numbers go to `chosen`. How many.
 */
u32 cbt_activity_retire(struct cbt_activity* activity, u32 want, u32* chosen);

/* A block must be written: something is added or retires. */
static inline bool cbt_activity_is_due(const struct cbt_activity* activity) {
    return activity->added != 0 || activity->retiring != 0;
}

/*
 * The next block's regions (room for CBT_ACTIVITY_REGIONS_MAX). How many. `drop`: without what
 * retires, whose bitmap blocks are durable by now. One block at a time: `durable` ends it.
 */
u32 cbt_activity_compose(struct cbt_activity* activity, bool drop, u32* numbers);
void cbt_activity_durable(struct cbt_activity* activity);

/* Is the region in the set, in any state? For tests and status. */
bool cbt_activity_has(const struct cbt_activity* activity, u32 region);

#endif
