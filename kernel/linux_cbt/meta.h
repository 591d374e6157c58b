/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The meta device of a disk: what is dirty outlives a power cut. Layout: docs/formats/dirty_map.md
 * Promise, while persistence is active: the region of every write that was submitted is in a
 * durable activity block, or its bits are in durable bitmap blocks; whatever this cannot be said of
 * is a gap by name at the next activation. Failure: a write error, or one that takes too long,
 * gives persistence up, and never fails I/O.
 */
#ifndef CBT_META_H
#define CBT_META_H

#include "disk.h"

struct cbt_write;

/* The meta device must have written a block after this long; and what is read at activation, where
 * a disk may have to spin up.
 */
#define CBT_META_DEADLINE_MS 5000u
#define CBT_META_READ_MS 60000u
/* Bits that went and digests are written this long after. */
#define CBT_META_TIDY_MS 5000u

/* In ctr: memory. */
int cbt_meta_create(struct cbt_disk *disk, struct cbt_target *target);
void cbt_meta_free(struct cbt_disk *disk);

/* In preresume, under target_mutex: activation, or back from a suspend. */
void cbt_meta_resume(struct cbt_disk *disk, struct cbt_target *target);
/* In postsuspend, under target_mutex. */
void cbt_meta_suspend(struct cbt_disk *disk, struct cbt_target *target);
/* In dtr: the last word, unless another table has taken over; waits for what a hung device has. */
void cbt_meta_stop(struct cbt_disk *disk, struct cbt_target *target);

/* Under disk->lock. May the write go on? If not, it is parked, or ends. */
bool cbt_meta_enter(struct cbt_disk *disk, struct cbt_write *write);
void cbt_meta_park(struct cbt_disk *disk, struct cbt_write *write);
void cbt_meta_leave(struct cbt_disk *disk, struct cbt_write *write);

/* Bits of words [low, high) went: on the meta device they go some time after. */
void cbt_meta_bits_went(struct cbt_disk *disk, u64 low, u64 high);

/* Durable when they return. */
int cbt_meta_marked(struct cbt_disk *disk, u64 sector, u64 sectors);
int cbt_meta_gap_closed(struct cbt_disk *disk);
int cbt_meta_cookie_write(struct cbt_disk *disk, const void *data, u32 bytes);
int cbt_meta_cookie_read(struct cbt_disk *disk, void *data, u32 *bytes);

void cbt_meta_stats(struct cbt_disk *disk, struct herald_cbt_stats_abi *stats);

#endif
