/* SPDX-License-Identifier: GPL-2.0-only */
/* What meta.c, activate.c, watch.c and meta_io.c share. */
#ifndef CBT_META_STATE_H
#define CBT_META_STATE_H

#include <linux/bio.h>
#include <linux/completion.h>
#include <linux/mutex.h>
#include <linux/workqueue.h>

#include "../core/activity.h"
#include "../core/layout.h"
#include "disk.h"

struct cbt_meta_io {
	struct bio bio;
	struct bio_vec vec;
	struct completion done;
	void *buffer;		 /* two blocks */
	struct cbt_target *user; /* whose device has the bio; NULL: none */
};

struct cbt_meta {
	struct cbt_disk *disk;
	struct mutex mutex;	   /* level 4; guards what follows */
	struct cbt_target *target; /* whose devices are used; NULL: none */
	bool loaded;
	bool ours;    /* has a superblock: only then is anything written */
	void *block;  /* buffers: one block */
	void *pair;   /* and two */
	u32 *numbers; /* regions of an activity block */
	u32 *chosen;
	struct cbt_meta_io io;
	struct cbt_superblock superblock;
	u64 activity_sequence;
	u64 cookie_sequence;
	u64 *bitmap_sequences;
	unsigned long *bitmap_stale; /* on disk it has bits that are gone; set under disk->lock */
	unsigned long *bitmap_any;   /* on disk it has bits */
	u64 bitmap_blocks;	     /* that there is memory for */
	u32 cookie_bytes;
	u8 cookie[HERALD_CBT_COOKIE_BYTES_MAX];

	/* Under disk->lock. */
	bool active;	  /* writes must enter */
	bool give_up_due; /* given up, and not yet written down */
	bool watch_open;  /* the flag is durable */
	bool watch_wanted;
	bool watch_closing;
	u32 watch_in_flight;
	unsigned long watch_used; /* jiffies */
	u64 writes;
	struct list_head waiting; /* parked writes */
	struct cbt_activity activity;

	struct work_struct work;
	struct delayed_work tidy_work;
};

/* meta_io.c. Under meta->mutex. -ETIMEDOUT after CBT_META_DEADLINE_MS of a write. */
int cbt_meta_read_pair(struct cbt_meta *meta, u64 pair);
int cbt_meta_write(struct cbt_meta *meta, u64 place, void *block);
int cbt_meta_write_superblock(struct cbt_meta *meta);
int cbt_meta_write_activity(struct cbt_meta *meta, u32 count);
int cbt_meta_write_bitmap(struct cbt_meta *meta, u64 index);
/* Waits for a bio that the target's device may still have. */
void cbt_meta_io_end(struct cbt_meta *meta, struct cbt_target *target);
/* Reads from the origin into meta->pair. bytes: at most two blocks. */
int cbt_origin_read(struct cbt_meta *meta, u64 sector, u32 bytes);

/* meta.c. Under disk->lock. */
void cbt_meta_give_up(struct cbt_meta *meta, u32 cause);
/* What a failed write is called. */
static inline u32 cbt_meta_cause(int error)
{
	return error == -ETIMEDOUT ? HERALD_CBT_CAUSE_META_SLOW : HERALD_CBT_CAUSE_META_WRITE;
}

void cbt_meta_let_go(struct cbt_meta *meta);

/* watch.c */
bool cbt_watch_covers(const struct cbt_disk *disk, u64 first, u64 last);
/* Digests of a disk of `sectors`. Under meta->mutex. */
int cbt_watch_read(struct cbt_meta *meta, u64 sectors, u64 *start, u64 *end);
/* Digests, and the flag cleared, if nothing was written there for a while. Under meta->mutex. */
void cbt_watch_close(struct cbt_meta *meta);

/* activate.c. Under both mutexes. */
void cbt_meta_activate(struct cbt_meta *meta);
void cbt_meta_come_back(struct cbt_meta *meta);

#endif
