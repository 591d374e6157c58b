// SPDX-License-Identifier: GPL-2.0-only
/*
 * The watched ranges: the disk's first 128 KiB and last 64 KiB. Their digests in the superblock
 * tell whether the disk was changed while nobody tracked it. Before they are written a flag says
 * so, durably; some seconds after the last such write new digests replace it.
 */
#include <linux/jiffies.h>
#include <linux/string.h>

#include "compat.h"
#include "meta.h"
#include "meta_state.h"

#define START_SECTORS (CBT_WATCH_START_BYTES >> SECTOR_SHIFT)
#define END_SECTORS (CBT_WATCH_END_BYTES >> SECTOR_SHIFT)

static u64 end_of(u64 sectors)
{
	return sectors > END_SECTORS ? sectors - END_SECTORS : 0;
}

bool cbt_watch_covers(const struct cbt_disk *disk, u64 first, u64 last)
{
	return first < START_SECTORS || last >= end_of(disk->sectors);
}

static int digest(struct cbt_meta *meta, u64 sector, u64 sectors, u64 *value)
{
	*value = 0;
	while (sectors) {
		u32 some = min_t(u64, sectors, 2 * CBT_META_BLOCK_BYTES >> SECTOR_SHIFT);
		int error = cbt_origin_read(meta, sector, some << SECTOR_SHIFT);

		if (error)
			return error;
		*value = cbt_watch_digest(*value, meta->pair, some << SECTOR_SHIFT);
		sector += some;
		sectors -= some;
	}
	return 0;
}

int cbt_watch_read(struct cbt_meta *meta, u64 sectors, u64 *start, u64 *end)
{
	int error = digest(meta, 0, min_t(u64, sectors, START_SECTORS), start);

	if (error)
		return error;
	return digest(meta, end_of(sectors), sectors - end_of(sectors), end);
}

void cbt_watch_close(struct cbt_meta *meta)
{
	struct cbt_disk *disk = meta->disk;
	u64 start;
	u64 end;
	int written;
	int error;

	spin_lock_irq(&disk->lock);
	if (!meta->active || !meta->watch_open) {
		spin_unlock_irq(&disk->lock);
		return;
	}
	if (meta->watch_in_flight ||
	    time_before(jiffies, meta->watch_used + msecs_to_jiffies(CBT_META_TIDY_MS))) {
		queue_delayed_work(cbt_slow_wq, &meta->tidy_work,
				   msecs_to_jiffies(CBT_META_TIDY_MS));
		spin_unlock_irq(&disk->lock);
		return;
	}
	/* New writes there wait until the flag is decided on: some milliseconds. */
	meta->watch_closing = true;
	spin_unlock_irq(&disk->lock);

	/* Digests of what a power cut could still undo would be found changed after it. */
	error = cbt_issue_flush(meta->target->origin->bdev);
	if (!error)
		error = cbt_watch_read(meta, disk->sectors, &start, &end);
	if (!error) {
		meta->superblock.watch_start = start;
		meta->superblock.watch_end = end;
		meta->superblock.flags &= ~CBT_META_FLAG_WATCH_OPEN;
		written = cbt_meta_write_superblock(meta);
		if (written) {
			spin_lock_irq(&disk->lock);
			cbt_meta_give_up(meta, cbt_meta_cause(written));
			spin_unlock_irq(&disk->lock);
		}
	}
	spin_lock_irq(&disk->lock);
	/* Unreadable ranges stay open: what cannot be compared is not called unchanged. */
	if (!error)
		meta->watch_open = false;
	else
		queue_delayed_work(cbt_slow_wq, &meta->tidy_work,
				   msecs_to_jiffies(CBT_META_TIDY_MS));
	meta->watch_closing = false;
	cbt_meta_let_go(meta);
	spin_unlock_irq(&disk->lock);
}
