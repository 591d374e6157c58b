/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * All that is known of one tracked disk. It lives from the first table of its dm device that names
 * `cbt` to the last, and as long as a file has it open; a new table of the same device takes it
 * over.
 *
 * Locks, taken in this order only:
 *   1  cbt_disks_mutex	module.c: the list of disks
 *   2  file->mutex	device.c: which disk a file owns
 *   3  disk->target_mutex	which table is in use; held while we do I/O on the origin of our own
 *   4  meta->mutex	meta.c: held while we write to the meta device
 *   5  cbt_group_mutex	group.c: the only one who takes several disk locks holds it
 *   6  disk->lock	irq-safe, as end_io takes it; everything about writes
 */
#ifndef CBT_DISK_H
#define CBT_DISK_H

#include <linux/device-mapper.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/spinlock.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "../core/bitmap.h"
#include "../core/generations.h"
#include "../core/mode.h"
#include "../core/ring.h"
#include "overlap.h"
#include "payload.h"

struct cbt_disk;
struct cbt_file;
struct cbt_meta;

struct cbt_options {
	u64 slots;
	u64 payload_bytes;
	u32 unresolved_ms;
	bool bounce;
};

/* One table line. */
struct cbt_target {
	struct dm_target *ti;
	struct cbt_disk *disk;
	struct dm_dev *origin;
	struct dm_dev *meta; /* NULL: none */
	struct cbt_options options;
	/*
	 * Made beforehand for a disk that this table makes larger: nothing is allocated while
	 * suspended.
	 */
	u64 *grown_words[2];
	u64 grown_blocks;
	bool activated;
};

/* Shown by HERALD_CBT_STATS; under disk->lock. */
struct cbt_counts {
	u64 writes;
	u64 written_bytes;
	u64 ranges;
	u64 parked_overlap;
	u64 parked_hold;
	u64 parked_activity;
	u64 again;
	u64 aborted;
	u64 unresolved;
	u64 tags;
	u64 slots_used_max;
	u64 payload_used_max;
	u64 in_flight;
	u64 held_ns_max;
	u64 causes[32];
	u64 capture[HERALD_CBT_CAPTURE_BUCKETS];
};

/* What passes without being tracked, for each processor. */
struct cbt_passed {
	u64 reads;
	u64 flushes;
};

struct cbt_disk {
	struct list_head all; /* cbt_disks */
	struct kref references;
	unsigned int targets;	  /* tables that name it; under cbt_disks_mutex */
	struct mapped_device *md; /* who it is; not to be followed */
	u32 major;
	u32 minor;
	dev_t origin_dev;
	dev_t meta_dev; /* 0: none */
	struct cbt_options options;
	u64 memory_bytes; /* counted against the module's cap */
	u8 tracking[16];
	u64 activation;
	u32 alignment; /* of payload below 4096 bytes */

	/* Level 3; which table is in use. */
	struct mutex target_mutex;
	struct cbt_target *last_used; /* not to be followed; under target_mutex */
	struct cbt_target *target;    /* NULL: suspended; changes under target_mutex and lock */
	struct cbt_meta *meta;	      /* NULL: none */
	bool announced;		      /* the activation's slot is there; under target_mutex */

	struct herald_cbt_header_abi *header;
	struct herald_cbt_slot_abi *slots;
	struct cbt_payload payload;
	struct cbt_passed __percpu *passed;

	spinlock_t lock; /* level 6; guards all below */
	u64 sectors;
	bool gone;	/* the table that was in use goes, and nothing is tracked any more */
	bool detaching; /* the next removal is meant */
	struct cbt_ring ring;
	struct cbt_mode mode;
	struct cbt_generations generations;
	struct cbt_bitmap maps[2];
	unsigned int current_map;
	u32 gap;
	u32 persistence;
	u32 persistence_cause;
	u32 events;
	u64 unslotted;		 /* writes in flight that have no slot */
	unsigned long sealed_at; /* jiffies */
	u64 oldest_unstored_ns;	 /* time of the slot at `stored`, 0: none */

	struct cbt_overlaps overlaps;
	struct list_head ready;	      /* may go on, in this order */
	struct list_head held_writes; /* wait for the hold's end */
	struct list_head hung;	      /* unresolved ones: their payload is pinned */
	bool resolve_armed;
	bool wake_armed;
	u32 commits;
	u32 wake_mask; /* the reader is woken when these bits of commits are 0 */

	struct cbt_file *owner;
	u64 drained; /* the owner has read the slots before it */
	u32 events_seen;
	struct cbt_file *held_by;
	u32 hold_ended; /* cause, of the last one */
	u64 held_since_ns;
	struct cbt_counts counts;

	wait_queue_head_t wait;
	struct work_struct ready_work;
	struct delayed_work wake_work;
	struct delayed_work clear_work;
	struct delayed_work resolve_work;
	struct delayed_work hold_work;
};

/* module.c */
extern struct mutex cbt_disks_mutex;
extern struct list_head cbt_disks;
extern struct workqueue_struct *cbt_fast_wq; /* never sleeps for I/O */
extern struct workqueue_struct *cbt_slow_wq;
u64 cbt_now(void);
bool cbt_memory_take(u64 bytes);
void cbt_memory_give(u64 bytes);
u64 cbt_memory_used(void);
u64 cbt_memory_max(void);

/* The disk of a dm device, referenced; NULL. */
struct cbt_disk *cbt_disk_find(u32 major, u32 minor);

/* The table's disk: the one of its dm device, or a new one. Under cbt_disks_mutex. */
int cbt_disk_attach(struct cbt_target *target);
/* The table that was in use last begins to go: whatever comes next is another disk. */
void cbt_disk_leave(struct cbt_target *target);
/* The table goes, with the last one the disk. Under cbt_disks_mutex. */
void cbt_disk_detach(struct cbt_target *target);
void cbt_disk_put(struct cbt_disk *disk);

static inline struct cbt_bitmap *cbt_current_map(struct cbt_disk *disk)
{
	return &disk->maps[disk->current_map];
}

static inline struct cbt_bitmap *cbt_sealed_map(struct cbt_disk *disk)
{
	return &disk->maps[disk->current_map ^ 1];
}

/* All below under disk->lock. */

/* Copies to the header page what is not kept there write by write. */
void cbt_disk_publish(struct cbt_disk *disk);
/* Something that a reader must look at changed: publishes, and wakes it. */
void cbt_disk_event(struct cbt_disk *disk);
/* Wakes the reader within HERALD_CBT_WAKE_MS. */
void cbt_disk_wake_soon(struct cbt_disk *disk);
void cbt_disk_sink(struct cbt_disk *disk, u32 mode, u32 cause, u64 now);
/* Up as far as there is room, by a mode slot. */
void cbt_disk_climb(struct cbt_disk *disk);
/* A range is dirty by something that no slot tells. */
void cbt_disk_mark(struct cbt_disk *disk, u64 sector, u64 sectors);
/* To be called before anything of the rings is given back. */
void cbt_disk_high_water(struct cbt_disk *disk);
/* Payload before it may be overwritten. */
u64 cbt_disk_pin(struct cbt_disk *disk);
/* A slot that is no write: takes one if there is one. */
bool cbt_disk_push(struct cbt_disk *disk, const struct cbt_change *change, u64 *number);

#endif
