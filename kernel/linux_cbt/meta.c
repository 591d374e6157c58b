// SPDX-License-Identifier: GPL-2.0-only
#include "meta.h"

#include <linux/bitops.h>
#include <linux/blkdev.h>
#include <linux/jiffies.h>
#include <linux/ktime.h>
#include <linux/mm.h>
#include <linux/slab.h>

#include "compat.h"
#include "meta_state.h"
#include "write.h"

/* Retire when less than an eighth is left, a quarter at a time: one block for some 250 regions. */
#define ROOM_MIN (CBT_ACTIVITY_REGIONS_MAX / 8)
#define RETIRE_BATCH (CBT_ACTIVITY_REGIONS_MAX / 4)

void cbt_meta_let_go(struct cbt_meta *meta)
{
	list_splice_tail_init(&meta->waiting, &meta->disk->ready);
	cbt_write_kick(meta->disk);
}

void cbt_meta_give_up(struct cbt_meta *meta, u32 cause)
{
	struct cbt_disk *disk = meta->disk;

	if (disk->persistence == HERALD_CBT_PERSISTENCE_GIVEN_UP)
		return;
	meta->active = false;
	meta->give_up_due = true;
	disk->persistence = HERALD_CBT_PERSISTENCE_GIVEN_UP;
	disk->persistence_cause = cause;
	disk->counts.causes[cause]++;
	cbt_meta_let_go(meta);
	cbt_disk_event(disk);
	queue_work(cbt_slow_wq, &meta->work);
}

static void give_up(struct cbt_meta *meta, u32 cause)
{
	spin_lock_irq(&meta->disk->lock);
	cbt_meta_give_up(meta, cause);
	spin_unlock_irq(&meta->disk->lock);
}

bool cbt_meta_enter(struct cbt_disk *disk, struct cbt_write *write)
{
	struct cbt_meta *meta = disk->meta;
	u32 first = write->overlap.first >> CBT_REGION_SECTORS_SHIFT;
	u32 regions = (u32)(write->overlap.last >> CBT_REGION_SECTORS_SHIFT) - first + 1;
	bool watched;

	if (!meta->active)
		return true;
	watched = cbt_watch_covers(disk, write->overlap.first, write->overlap.last);
	if (watched && (!meta->watch_open || meta->watch_closing)) {
		meta->watch_wanted = true;
		queue_work(cbt_slow_wq, &meta->work);
		return false;
	}
	if (cbt_activity_enter(&meta->activity, first, regions) != CBT_ACTIVITY_ENTERED) {
		queue_work(cbt_slow_wq, &meta->work);
		return false;
	}
	write->first_region = first;
	write->regions = regions;
	if (watched) {
		write->watched = true;
		meta->watch_in_flight++;
		meta->watch_used = jiffies;
	}
	return true;
}

void cbt_meta_park(struct cbt_disk *disk, struct cbt_write *write)
{
	struct cbt_meta *meta = disk->meta;

	list_add_tail(&write->overlap.ready, &meta->waiting);
}

void cbt_meta_leave(struct cbt_disk *disk, struct cbt_write *write)
{
	struct cbt_meta *meta = disk->meta;

	cbt_activity_leave(&meta->activity, write->first_region, write->regions);
	if (write->watched)
		meta->watch_in_flight--;
	/* It may have been the last that kept its region from retiring. */
	if (!list_empty(&meta->waiting))
		queue_work(cbt_slow_wq, &meta->work);
}

/* Writes down that bitmap and log are not to be believed. */
static void write_given_up(struct cbt_meta *meta)
{
	struct cbt_disk *disk = meta->disk;

	meta->superblock.flags |= CBT_META_FLAG_GIVEN_UP;
	meta->superblock.gap_cause = READ_ONCE(disk->persistence_cause);
	meta->superblock.gap_ns = ktime_get_real_ns();
	if (meta->ours && cbt_meta_write_superblock(meta)) {
		/* Tried again: until it is written, only the reader knows, from the header page. */
		queue_delayed_work(cbt_slow_wq, &meta->tidy_work,
				   msecs_to_jiffies(CBT_META_TIDY_MS));
		return;
	}
	spin_lock_irq(&disk->lock);
	meta->give_up_due = false;
	spin_unlock_irq(&disk->lock);
}

static int open_watch(struct cbt_meta *meta)
{
	int error;

	meta->superblock.flags |= CBT_META_FLAG_WATCH_OPEN;
	error = cbt_meta_write_superblock(meta);
	if (error)
		return error;
	spin_lock_irq(&meta->disk->lock);
	meta->watch_open = true;
	meta->watch_wanted = false;
	meta->watch_used = jiffies;
	cbt_meta_let_go(meta);
	spin_unlock_irq(&meta->disk->lock);
	queue_delayed_work(cbt_slow_wq, &meta->tidy_work, msecs_to_jiffies(CBT_META_TIDY_MS));
	return 0;
}

/* An activity block; then what waits for it may go. */
static int write_log(struct cbt_meta *meta, bool drop)
{
	struct cbt_disk *disk = meta->disk;
	u32 count;
	int error;

	spin_lock_irq(&disk->lock);
	count = cbt_activity_compose(&meta->activity, drop, meta->numbers);
	spin_unlock_irq(&disk->lock);
	error = cbt_meta_write_activity(meta, count);
	if (error)
		return error;
	spin_lock_irq(&disk->lock);
	cbt_activity_durable(&meta->activity);
	cbt_meta_let_go(meta);
	spin_unlock_irq(&disk->lock);
	return 0;
}

/*
 * Bitmap blocks of what retires first, then the block without them. What is added waits for none of
 * them.
 */
static int retire(struct cbt_meta *meta, u32 retiring)
{
	u32 index;
	int error;

	for (index = 0; index < retiring; index++) {
		u64 block = cbt_meta_bitmap_of_region(meta->chosen[index]);
		u32 before;

		/* Once each; the numbers are in no order, and few. */
		for (before = 0; before < index; before++)
			if (cbt_meta_bitmap_of_region(meta->chosen[before]) == block)
				break;
		if (before < index)
			continue;
		if (READ_ONCE(meta->activity.added)) {
			error = write_log(meta, false);
			if (error)
				return error;
		}
		error = cbt_meta_write_bitmap(meta, block);
		if (error)
			return error;
	}
	return write_log(meta, true);
}

static void meta_work(struct work_struct *work)
{
	struct cbt_meta *meta = container_of(work, struct cbt_meta, work);
	struct cbt_disk *disk = meta->disk;
	bool more = true;

	mutex_lock(&meta->mutex);
	while (more && meta->target) {
		bool watch;
		bool added;
		bool lost;
		u32 retiring = 0;
		int error = 0;

		spin_lock_irq(&disk->lock);
		lost = meta->give_up_due;
		watch = meta->active && meta->watch_wanted && !meta->watch_open &&
			!meta->watch_closing;
		added = meta->active && meta->activity.added;
		if (meta->active && !added &&
		    meta->activity.capacity - meta->activity.used < ROOM_MIN)
			retiring = cbt_activity_retire(&meta->activity, RETIRE_BATCH, meta->chosen);
		/* Opened since it was wanted: what waits for it need not. */
		if (meta->watch_open && meta->watch_wanted && !meta->watch_closing) {
			meta->watch_wanted = false;
			cbt_meta_let_go(meta);
		}
		spin_unlock_irq(&disk->lock);

		if (lost)
			write_given_up(meta);
		if (watch)
			error = open_watch(meta);
		if (!error && added)
			error = write_log(meta, false);
		if (!error && retiring)
			error = retire(meta, retiring);
		if (error) {
			give_up(meta, cbt_meta_cause(error));
			break;
		}
		more = watch || added || retiring;
	}
	mutex_unlock(&meta->mutex);
}

/* Between two blocks of a longer job: whoever waits for the log does not wait for all of it. */
static void give_way(struct cbt_meta *meta)
{
	if (list_empty_careful(&meta->waiting))
		return;
	mutex_unlock(&meta->mutex);
	cond_resched();
	mutex_lock(&meta->mutex);
}

static void tidy_work(struct work_struct *work)
{
	struct cbt_meta *meta = container_of(to_delayed_work(work), struct cbt_meta, tidy_work);
	u64 index = 0;
	int error;

	mutex_lock(&meta->mutex);
	/* While suspended the origin may be, too. */
	if (meta->target && READ_ONCE(meta->disk->target))
		cbt_watch_close(meta);
	while (meta->target && READ_ONCE(meta->active)) {
		index = find_next_bit(meta->bitmap_stale, meta->bitmap_blocks, index);
		if (index >= meta->bitmap_blocks)
			break;
		error = cbt_meta_write_bitmap(meta, index);
		if (error) {
			give_up(meta, cbt_meta_cause(error));
			break;
		}
		give_way(meta);
	}
	if (meta->target && READ_ONCE(meta->give_up_due))
		write_given_up(meta);
	mutex_unlock(&meta->mutex);
}

void cbt_meta_bits_went(struct cbt_disk *disk, u64 low, u64 high)
{
	struct cbt_meta *meta = disk->meta;
	u64 index;
	bool any = false;

	if (!meta)
		return;
	for (index = low / CBT_META_WORDS_PER_BLOCK;
	     index * CBT_META_WORDS_PER_BLOCK < high && index < meta->bitmap_blocks; index++) {
		if (!test_bit(index, meta->bitmap_any))
			continue;
		set_bit(index, meta->bitmap_stale);
		any = true;
	}
	if (any)
		queue_delayed_work(cbt_slow_wq, &meta->tidy_work,
				   msecs_to_jiffies(CBT_META_TIDY_MS));
}

int cbt_meta_marked(struct cbt_disk *disk, u64 sector, u64 sectors)
{
	struct cbt_meta *meta = disk->meta;
	u64 index;
	u64 last;
	int error = 0;

	if (!meta)
		return 0;
	mutex_lock(&meta->mutex);
	index = cbt_meta_bitmap_of_region(sector >> CBT_REGION_SECTORS_SHIFT);
	last = cbt_meta_bitmap_of_region((sector + sectors - 1) >> CBT_REGION_SECTORS_SHIFT);
	for (; meta->target && READ_ONCE(meta->active) && index <= last && !error; index++) {
		/* The disk grew while this was on its way: what is beyond is not in the log. */
		error = index < meta->bitmap_blocks ? cbt_meta_write_bitmap(meta, index) : -ENOSPC;
		if (!error)
			give_way(meta);
	}
	if (error)
		give_up(meta, cbt_meta_cause(error));
	mutex_unlock(&meta->mutex);
	return error;
}

int cbt_meta_gap_closed(struct cbt_disk *disk)
{
	struct cbt_meta *meta = disk->meta;
	int error = 0;

	if (!meta)
		return 0;
	mutex_lock(&meta->mutex);
	if (meta->target && READ_ONCE(meta->active) && meta->superblock.gap) {
		meta->superblock.gap = HERALD_CBT_CAUSE_NONE;
		error = cbt_meta_write_superblock(meta);
		if (error)
			give_up(meta, cbt_meta_cause(error));
	}
	mutex_unlock(&meta->mutex);
	return error;
}

int cbt_meta_cookie_write(struct cbt_disk *disk, const void *data, u32 bytes)
{
	struct cbt_meta *meta = disk->meta;
	int error;

	if (!meta)
		return -EOPNOTSUPP;
	mutex_lock(&meta->mutex);
	/* What is not believed at the next activation must not be continued by a cookie, either. */
	if (!meta->target || !meta->ours ||
	    READ_ONCE(disk->persistence) == HERALD_CBT_PERSISTENCE_GIVEN_UP) {
		error = -EIO;
	} else {
		u64 sequence = ++meta->cookie_sequence;

		cbt_cookie_encode(data, bytes, sequence, meta->superblock.tracking, meta->block);
		error = cbt_meta_write(meta, cbt_meta_place(CBT_META_PAIR_COOKIE, sequence),
				       meta->block);
		if (error) {
			give_up(meta, cbt_meta_cause(error));
		} else {
			memcpy(meta->cookie, data, bytes);
			meta->cookie_bytes = bytes;
		}
	}
	mutex_unlock(&meta->mutex);
	return error;
}

int cbt_meta_cookie_read(struct cbt_disk *disk, void *data, u32 *bytes)
{
	struct cbt_meta *meta = disk->meta;

	if (!meta)
		return -EOPNOTSUPP;
	mutex_lock(&meta->mutex);
	*bytes = meta->cookie_bytes;
	memcpy(data, meta->cookie, meta->cookie_bytes);
	mutex_unlock(&meta->mutex);
	return 0;
}

void cbt_meta_stats(struct cbt_disk *disk, struct herald_cbt_stats_abi *stats)
{
	struct cbt_meta *meta = disk->meta;

	if (!meta)
		return;
	spin_lock_irq(&disk->lock);
	stats->meta_writes = meta->writes;
	stats->activity_hits = meta->activity.hits;
	stats->activity_misses = meta->activity.misses;
	stats->hot_regions = meta->activity.used;
	spin_unlock_irq(&disk->lock);
}

void cbt_meta_resume(struct cbt_disk *disk, struct cbt_target *target)
{
	struct cbt_meta *meta = disk->meta;

	if (!meta)
		return;
	mutex_lock(&meta->mutex);
	meta->target = target;
	if (meta->loaded)
		cbt_meta_come_back(meta);
	else
		cbt_meta_activate(meta);
	meta->loaded = true;
	/* What was not tidied while nothing was in use. */
	queue_delayed_work(cbt_slow_wq, &meta->tidy_work, msecs_to_jiffies(CBT_META_TIDY_MS));
	mutex_unlock(&meta->mutex);
}

void cbt_meta_suspend(struct cbt_disk *disk, struct cbt_target *target)
{
	struct cbt_meta *meta = disk->meta;
	int error;

	if (!meta)
		return;
	mutex_lock(&meta->mutex);
	if (meta->target == target && READ_ONCE(meta->active)) {
		/* Another table may take our place, and tell us only when it has. */
		meta->superblock.flags |= CBT_META_FLAG_AWAY;
		error = cbt_meta_write_superblock(meta);
		if (error)
			give_up(meta, cbt_meta_cause(error));
	}
	mutex_unlock(&meta->mutex);
}

/* Is the dm device on its way out, or does it live on with another table? */
static bool is_removed(struct cbt_target *target)
{
	return cbt_disk_is_dying(dm_disk(dm_table_get_md(target->ti->table)));
}

/* Bits, then an empty log, then the digests and the word. */
static int write_last(struct cbt_meta *meta, struct cbt_target *target)
{
	struct cbt_disk *disk = meta->disk;
	struct cbt_superblock *superblock = &meta->superblock;
	u64 block;
	u32 index;
	int error;

	for (index = 0; index < meta->activity.capacity; index++)
		if (meta->activity.regions[index].state != CBT_REGION_FREE)
			set_bit(cbt_meta_bitmap_of_region(meta->activity.regions[index].number),
				meta->bitmap_stale);
	for_each_set_bit(block, meta->bitmap_stale, meta->bitmap_blocks) {
		error = cbt_meta_write_bitmap(meta, block);
		if (error)
			return error;
	}
	error = cbt_meta_write_activity(meta, 0);
	if (error)
		return error;
	superblock->flags = 0;
	/* Without digests nothing could be compared: the flag says so. */
	if (cbt_issue_flush(target->origin->bdev) ||
	    cbt_watch_read(meta, disk->sectors, &superblock->watch_start, &superblock->watch_end))
		superblock->flags |= CBT_META_FLAG_WATCH_OPEN;
	if (disk->detaching)
		superblock->state = CBT_META_DETACHED;
	else if (is_removed(target))
		superblock->state = CBT_META_CLEAN;
	else
		superblock->flags |= CBT_META_FLAG_AWAY;
	return cbt_meta_write_superblock(meta);
}

void cbt_meta_stop(struct cbt_disk *disk, struct cbt_target *target)
{
	struct cbt_meta *meta = disk->meta;
	int error = 0;

	if (!meta)
		return;
	mutex_lock(&meta->mutex);
	if (meta->target == target) {
		if (READ_ONCE(meta->active))
			error = write_last(meta, target);
		if (error)
			give_up(meta, cbt_meta_cause(error));
		if (READ_ONCE(meta->give_up_due))
			write_given_up(meta);
		spin_lock_irq(&disk->lock);
		meta->active = false;
		cbt_meta_let_go(meta);
		spin_unlock_irq(&disk->lock);
		meta->target = NULL;
	}
	/* Its devices are closed next. I/O goes another way by now. */
	cbt_meta_io_end(meta, target);
	mutex_unlock(&meta->mutex);
}

int cbt_meta_create(struct cbt_disk *disk, struct cbt_target *target)
{
	struct cbt_meta *meta = kvzalloc(sizeof(*meta), GFP_KERNEL);
	u64 room = cbt_bdev_sectors(target->meta->bdev) >> 3;

	if (!meta)
		return -ENOMEM;
	disk->meta = meta;
	meta->disk = disk;
	mutex_init(&meta->mutex);
	INIT_LIST_HEAD(&meta->waiting);
	INIT_WORK(&meta->work, meta_work);
	INIT_DELAYED_WORK(&meta->tidy_work, tidy_work);
	init_completion(&meta->io.done);
	cbt_activity_init(&meta->activity, CBT_ACTIVITY_REGIONS_MAX);
	/* For all that the device has room for: the disk may grow. */
	room = room / 2 > CBT_META_PAIR_BITMAP ? room / 2 - CBT_META_PAIR_BITMAP : 0;
	meta->bitmap_blocks = min(room, cbt_meta_bitmap_blocks(HERALD_CBT_DISK_SECTORS_MAX));
	meta->block = (void *)__get_free_page(GFP_KERNEL);
	meta->pair = (void *)__get_free_pages(GFP_KERNEL, get_order(2 * CBT_META_BLOCK_BYTES));
	meta->io.buffer = (void *)__get_free_pages(GFP_KERNEL, get_order(2 * CBT_META_BLOCK_BYTES));
	meta->numbers = kvcalloc(CBT_ACTIVITY_REGIONS_MAX, sizeof(u32), GFP_KERNEL);
	meta->chosen = kvcalloc(CBT_ACTIVITY_REGIONS_MAX, sizeof(u32), GFP_KERNEL);
	meta->bitmap_sequences = kvcalloc(meta->bitmap_blocks + 1, sizeof(u64), GFP_KERNEL);
	meta->bitmap_stale =
		kvcalloc(BITS_TO_LONGS(meta->bitmap_blocks + 1), sizeof(long), GFP_KERNEL);
	meta->bitmap_any =
		kvcalloc(BITS_TO_LONGS(meta->bitmap_blocks + 1), sizeof(long), GFP_KERNEL);
	if (!meta->block || !meta->pair || !meta->io.buffer || !meta->numbers || !meta->chosen ||
	    !meta->bitmap_sequences || !meta->bitmap_stale || !meta->bitmap_any)
		return -ENOMEM;
	return 0;
}

void cbt_meta_free(struct cbt_disk *disk)
{
	struct cbt_meta *meta = disk->meta;

	if (!meta)
		return;
	cancel_work_sync(&meta->work);
	cancel_delayed_work_sync(&meta->tidy_work);
	free_page((unsigned long)meta->block);
	free_pages((unsigned long)meta->pair, get_order(2 * CBT_META_BLOCK_BYTES));
	free_pages((unsigned long)meta->io.buffer, get_order(2 * CBT_META_BLOCK_BYTES));
	kvfree(meta->numbers);
	kvfree(meta->chosen);
	kvfree(meta->bitmap_sequences);
	kvfree(meta->bitmap_stale);
	kvfree(meta->bitmap_any);
	kvfree(meta);
	disk->meta = NULL;
}
