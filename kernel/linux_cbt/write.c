// SPDX-License-Identifier: GPL-2.0-only
#include "write.h"

#include <linux/blkdev.h>
#include <linux/ktime.h>
#include <linux/log2.h>

#include "compat.h"
#include "meta.h"
#include "resolve.h"
#include "trace.h"

enum verdict {
	GO,
	PARKED,
	AGAIN,
};

void cbt_write_kick(struct cbt_disk *disk)
{
	if (!list_empty(&disk->ready))
		queue_work(cbt_fast_wq, &disk->ready_work);
}

/*
 * Place, time and bits of the write, in one critical section: so slots are in the order in which
 * overlapping writes take effect, and times are in the order of slots. Under disk->lock.
 */
static __always_inline void reserve(struct cbt_disk *disk, struct cbt_write *write)
{
	struct bio *bio = write->bio;
	u64 sectors = write->overlap.last - write->overlap.first + 1;
	u64 payload = 0;
	u64 now;
	struct cbt_change change;

	write->stage = CBT_STAGE_SUBMITTED;
	disk->counts.in_flight++;
	disk->counts.writes++;
	if (write->kind == HERALD_CBT_WRITE)
		disk->counts.written_bytes += bio->bi_iter.bi_size;
	else
		disk->counts.ranges++;
	/* Before the write can reach the disk: dirty until it is known to be stored and flushed. */
	cbt_bitmap_set_sectors(cbt_current_map(disk), write->overlap.first, sectors);

	if (disk->mode.mode != HERALD_CBT_MODE_MAP && !cbt_ring_slots_free(&disk->ring))
		cbt_disk_sink(disk, HERALD_CBT_MODE_MAP, HERALD_CBT_CAUSE_SLOTS_FULL, cbt_now());
	write->reserved_at = jiffies;
	cbt_resolve_arm(disk);
	if (disk->mode.mode == HERALD_CBT_MODE_MAP) {
		disk->unslotted++;
		cbt_generations_need_scan(&disk->generations);
		return;
	}
	now = cbt_now();
	change = (struct cbt_change){
		.sector = write->overlap.first,
		.sectors = sectors,
		.state = HERALD_CBT_RESERVED,
		.kind = write->kind,
		.flags = bio->bi_opf & REQ_FUA ? HERALD_CBT_SLOT_FUA : 0,
	};
	if (disk->mode.mode == HERALD_CBT_MODE_ORDERED && write->kind == HERALD_CBT_WRITE) {
		u32 bytes = bio->bi_iter.bi_size;
		u32 alignment = bytes >= PAGE_SIZE ? PAGE_SIZE : disk->alignment;

		if (cbt_ring_payload_fits(&disk->ring, bytes, alignment, &payload)) {
			change.payload_bytes = bytes;
			write->bounced = disk->options.bounce && cbt_payload_can_swap(bio);
			if (!write->bounced)
				change.flags |= HERALD_CBT_SLOT_INEXACT;
		} else {
			cbt_disk_sink(disk, HERALD_CBT_MODE_EXTENTS, HERALD_CBT_CAUSE_PAYLOAD_FULL,
				      now);
		}
	}
	write->slot = cbt_ring_slot(&disk->ring, cbt_ring_push(&disk->ring, &change, payload, now));
	write->payload = payload;
	write->payload_bytes = change.payload_bytes;
	trace_cbt_reserve(disk->major, disk->minor, disk->ring.head - 1, change.sector,
			  change.sectors, change.payload_bytes, change.kind);
}

/*
 * One more stage, or as many as need no waiting. Under disk->lock. Inline, so that a write that
 * begins is known to be at the first.
 */
static __always_inline enum verdict advance(struct cbt_disk *disk, struct cbt_write *write)
{
	bool nowait = write->bio->bi_opf & REQ_NOWAIT;

	switch (write->stage) {
	case CBT_STAGE_NEW:
		if (disk->held_by) {
			if (nowait)
				return AGAIN;
			disk->counts.parked_hold++;
			list_add_tail(&write->overlap.ready, &disk->held_writes);
			return PARKED;
		}
		write->stage = CBT_STAGE_OVERLAP;
		if (!cbt_overlap_add(&disk->overlaps, &write->overlap)) {
			if (nowait)
				break;
			disk->counts.parked_overlap++;
			return PARKED;
		}
		fallthrough;
	case CBT_STAGE_OVERLAP:
		write->stage = CBT_STAGE_ACTIVITY;
		fallthrough;
	case CBT_STAGE_ACTIVITY:
		if (disk->meta && !cbt_meta_enter(disk, write)) {
			if (nowait)
				break;
			disk->counts.parked_activity++;
			cbt_meta_park(disk, write);
			return PARKED;
		}
		reserve(disk, write);
		return GO;
	default:
		WARN_ON_ONCE(1);
		return GO;
	}
	/* It was in the set, and others may wait for it already. */
	cbt_overlap_remove(&disk->overlaps, &write->overlap, &disk->ready);
	cbt_write_kick(disk);
	return AGAIN;
}

/* Outside the lock: the copy is most of what a write costs. */
static void capture(struct cbt_disk *disk, struct cbt_write *write)
{
	struct bio *bio = write->bio;
	u64 began = 0;

	/*
	 * One page of 16 is timed, as looking at the clock twice costs as much as the lock; the
	 * counts are not worth one, and may lose some.
	 */
	if (!((write->payload >> PAGE_SHIFT) & 15))
		began = ktime_get_ns();
	cbt_payload_copy(&disk->payload, write->payload, bio);
	/* What the disk gets is what the reader gets, whoever changes the buffer meanwhile. */
	if (write->bounced)
		cbt_payload_swap(&disk->payload, write->payload, bio);
	if (began) {
		int bucket = fls64((ktime_get_ns() - began) >> 8);

		disk->counts.capture[min_t(int, bucket, HERALD_CBT_CAPTURE_BUCKETS - 1)]++;
	}
}

int cbt_write_begin(struct cbt_disk *disk, struct cbt_write *write, struct bio *bio, u16 kind)
{
	enum verdict verdict;
	unsigned long flags;

	write->disk = disk;
	write->bio = bio;
	write->slot = NULL;
	write->payload_bytes = 0;
	write->regions = 0;
	write->kind = kind;
	write->stage = CBT_STAGE_NEW;
	write->tracked = true;
	write->hung = false;
	write->watched = false;
	if (bio->bi_opf & REQ_NOWAIT) {
		write->index = bio->bi_iter.bi_idx;
		write->done = bio->bi_iter.CBT_ITER_DONE;
	}
	write->overlap.first = bio->bi_iter.bi_sector;
	write->overlap.last = bio->bi_iter.bi_sector + bio_sectors(bio) - 1;

	spin_lock_irqsave(&disk->lock, flags);
	verdict = advance(disk, write);
	if (verdict == AGAIN) {
		disk->counts.again++;
		write->tracked = false;
	}
	spin_unlock_irqrestore(&disk->lock, flags);

	if (verdict == PARKED)
		return DM_MAPIO_SUBMITTED;
	if (verdict == AGAIN) {
		bio->bi_status = BLK_STS_AGAIN;
		bio_endio(bio);
		return DM_MAPIO_SUBMITTED;
	}
	if (write->payload_bytes)
		capture(disk, write);
	return DM_MAPIO_REMAPPED;
}

void cbt_write_ready_work(struct work_struct *work)
{
	struct cbt_disk *disk = container_of(work, struct cbt_disk, ready_work);

	for (;;) {
		enum verdict verdict;
		struct cbt_write *write;
		bool again;

		spin_lock_irq(&disk->lock);
		if (list_empty(&disk->ready)) {
			spin_unlock_irq(&disk->lock);
			return;
		}
		write = cbt_write_waiting(disk->ready.next);
		list_del_init(&write->overlap.ready);
		again = write->stage == CBT_STAGE_SUBMITTED;
		verdict = again ? GO : advance(disk, write);
		spin_unlock_irq(&disk->lock);
		if (verdict == GO) {
			if (write->payload_bytes && !again)
				capture(disk, write);
			submit_bio_noacct(write->bio);
		}
		cond_resched();
	}
}

/*
 * A hung write ends: the reader passed its slot by, and a scan made meanwhile may have read what
 * was before. Whoever waits for this write writes later, so the range is told now.
 * Under disk->lock.
 */
static void tell_again(struct cbt_disk *disk, struct cbt_write *write)
{
	u64 number;
	struct cbt_change change = {
		.sector = write->overlap.first,
		.sectors = write->overlap.last - write->overlap.first + 1,
		.state = HERALD_CBT_COMMITTED,
		.kind = HERALD_CBT_REREAD,
	};

	cbt_bitmap_set_sectors(cbt_current_map(disk), change.sector, change.sectors);
	if (disk->mode.mode != HERALD_CBT_MODE_MAP) {
		if (cbt_disk_push(disk, &change, &number))
			return;
		/* The latch: no boundary after this one is whole without the range. */
		cbt_disk_sink(disk, HERALD_CBT_MODE_MAP, HERALD_CBT_CAUSE_SLOTS_FULL, cbt_now());
	}
	cbt_generations_need_scan(&disk->generations);
}

void cbt_write_slotless_ended(struct cbt_disk *disk)
{
	disk->unslotted--;
	/* Only after a climb is the last of these waited for. */
	if (!disk->unslotted && disk->mode.mode != HERALD_CBT_MODE_MAP)
		queue_delayed_work(cbt_slow_wq, &disk->clear_work, 0);
}

void cbt_write_again(struct cbt_write *write, struct block_device *origin)
{
	struct cbt_disk *disk = write->disk;
	struct bio *bio = write->bio;
	unsigned long flags;

	/* As it was before whatever is below began with it. */
	bio->bi_opf &= ~REQ_NOWAIT;
	bio->bi_status = BLK_STS_OK;
	bio_set_dev(bio, origin);
	bio->bi_iter.bi_sector = write->overlap.first;
	bio->bi_iter.bi_size = (write->overlap.last - write->overlap.first + 1) << SECTOR_SHIFT;
	bio->bi_iter.bi_idx = write->index;
	bio->bi_iter.CBT_ITER_DONE = write->done;
	if (write->payload_bytes && write->bounced)
		cbt_payload_swap(&disk->payload, write->payload, bio);

	spin_lock_irqsave(&disk->lock, flags);
	list_add_tail(&write->overlap.ready, &disk->ready);
	cbt_write_kick(disk);
	spin_unlock_irqrestore(&disk->lock, flags);
}

void cbt_write_end(struct cbt_write *write, blk_status_t status)
{
	struct cbt_disk *disk = write->disk;
	u32 state = HERALD_CBT_COMMITTED;
	u16 more = 0;
	bool wake = false;
	unsigned long flags;

	write->tracked = false;
	/* What was refused did nothing; of zeroes and erasure that is not to be relied on. */
	if (status == BLK_STS_NOTSUPP && write->kind == HERALD_CBT_DISCARD)
		more = HERALD_CBT_SLOT_NO_EFFECT;
	else if (status != BLK_STS_OK)
		state = HERALD_CBT_ABORTED;

	spin_lock_irqsave(&disk->lock, flags);
	disk->counts.in_flight--;
	if (state == HERALD_CBT_ABORTED)
		disk->counts.aborted++;
	if (write->regions || write->watched)
		cbt_meta_leave(disk, write);
	if (write->hung) {
		list_del(&write->hung_entry);
		tell_again(disk, write);
		cbt_disk_high_water(disk);
		cbt_ring_unpin(&disk->ring, cbt_disk_pin(disk));
		cbt_disk_climb(disk);
		cbt_disk_event(disk);
	} else if (!write->slot) {
		cbt_write_slotless_ended(disk);
	} else {
		trace_cbt_commit(disk->major, disk->minor, write->overlap.first, state);
		cbt_slot_commit(write->slot, state, more);
		wake = !!disk->owner;
	}
	/* After the commit: who waits for this one gets a later slot. */
	cbt_overlap_remove(&disk->overlaps, &write->overlap, &disk->ready);
	cbt_write_kick(disk);
	if (wake) {
		if (!(++disk->commits & disk->wake_mask))
			wake_up_interruptible(&disk->wait);
		else if (!disk->wake_armed)
			cbt_disk_wake_soon(disk);
	}
	spin_unlock_irqrestore(&disk->lock, flags);
}
