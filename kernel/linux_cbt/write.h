/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One write on its way: hold, overlap, activity, reserve, copy, device, complete.
 * Promise: nothing here sleeps; a write that must wait is parked and goes on from a workqueue; one
 * that must not wait (REQ_NOWAIT) ends with BLK_STS_AGAIN instead.
 */
#ifndef CBT_WRITE_H
#define CBT_WRITE_H

#include <linux/bio.h>

#include "disk.h"

enum cbt_stage {
	CBT_STAGE_NEW,	    /* waits, if at all, for the end of a hold */
	CBT_STAGE_OVERLAP,  /* for writes that it overlaps */
	CBT_STAGE_ACTIVITY, /* for the activity log, or the watch flag */
	CBT_STAGE_SUBMITTED,
};

/* dm's per-bio data: not zeroed by dm. */
struct cbt_write {
	struct cbt_overlap overlap; /* its `ready` is on whichever list the write waits on */
	struct cbt_disk *disk;
	struct bio *bio;
	struct list_head hung_entry;	  /* on disk->hung */
	struct herald_cbt_slot_abi *slot; /* NULL: none */
	u64 payload;
	unsigned long reserved_at; /* jiffies */
	u32 payload_bytes;
	u32 index; /* of REQ_NOWAIT: where the bio's iterator began */
	u32 done;
	u32 first_region;
	u32 regions; /* entered in the activity log; 0: none */
	u16 kind;
	u8 stage;
	bool tracked;
	bool hung;
	bool watched; /* counted among writes to the watched ranges */
	bool bounced; /* set where there is payload: written to the disk from there */
};

static inline struct cbt_write *cbt_write_waiting(struct list_head *entry)
{
	return list_entry(entry, struct cbt_write, overlap.ready);
}

/* From map: DM_MAPIO_*. */
int cbt_write_begin(struct cbt_disk *disk, struct cbt_write *write, struct bio *bio, u16 kind);
/*
 * From end_io, of a write that must not wait and would have had to, below: it goes down once more,
 * and waits. It has its slot; to end it now would make a failed write of a refused one.
 */
void cbt_write_again(struct cbt_write *write, struct block_device *origin);
/* From end_io. */
void cbt_write_end(struct cbt_write *write, blk_status_t status);

/* One that had no slot, or has none to wait for any more. Under disk->lock. */
void cbt_write_slotless_ended(struct cbt_disk *disk);
/* Lets go what is on disk->ready. Under disk->lock. */
void cbt_write_kick(struct cbt_disk *disk);
void cbt_write_ready_work(struct work_struct *work);

#endif
