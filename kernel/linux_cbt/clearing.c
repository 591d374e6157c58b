// SPDX-License-Identifier: GPL-2.0-only
#include "clearing.h"

#include <linux/jiffies.h>

#include "compat.h"
#include "meta.h"
#include "write.h"

bool cbt_seal(struct cbt_disk *disk)
{
	struct cbt_write *write;

	if (!cbt_generations_may_seal(&disk->generations, disk->mode.mode, disk->unslotted))
		return false;
	/* The sealed map is empty: its clearing ended before there was none sealed. */
	disk->current_map ^= 1;
	cbt_generations_seal(&disk->generations, disk->ring.head);
	/* A hung write may still reach the disk, at any time: its blocks are never all clear. */
	list_for_each_entry(write, &disk->hung, hung_entry)
		cbt_bitmap_set_sectors(cbt_current_map(disk), write->overlap.first,
				       write->overlap.last - write->overlap.first + 1);
	disk->sealed_at = jiffies;
	cbt_disk_event(disk);
	return true;
}

static bool is_worth_sealing(struct cbt_disk *disk)
{
	return !cbt_bitmap_is_empty(cbt_current_map(disk)) ||
	       (disk->generations.current_flags & HERALD_CBT_GENERATION_NEEDS_SCAN);
}

void cbt_clear_work(struct work_struct *work)
{
	struct cbt_disk *disk = container_of(to_delayed_work(work), struct cbt_disk, clear_work);
	bool again = true;

	/* Held over the flush: the table, and with it the origin, stays. */
	mutex_lock(&disk->target_mutex);
	while (again && disk->target) {
		int error;

		again = false;
		spin_lock_irq(&disk->lock);
		/* Without a reader nothing would be stored, and a sealed map waits for no one. */
		if (!disk->generations.sealed && disk->owner && is_worth_sealing(disk)) {
			unsigned long due = disk->sealed_at + msecs_to_jiffies(CBT_SEAL_MS);

			if (!disk->sealed_at || time_after_eq(jiffies, due))
				cbt_seal(disk);
			else
				queue_delayed_work(cbt_slow_wq, &disk->clear_work, due - jiffies);
		}
		if (!cbt_generations_may_flush(&disk->generations)) {
			spin_unlock_irq(&disk->lock);
			break;
		}
		cbt_generations_flushing(&disk->generations);
		spin_unlock_irq(&disk->lock);

		/*
		 * Issued after the reader's word: every write of this generation had completed
		 * before the reader could store it, so this flush covers them all.
		 */
		error = cbt_issue_flush(disk->target->origin->bdev);
		if (!error) {
			/*
			 * Nobody sets bits there, and who reads some too many errs on the safe
			 * side.
			 */
			u64 low = cbt_sealed_map(disk)->low;
			u64 high = cbt_sealed_map(disk)->high;

			cbt_bitmap_clear(cbt_sealed_map(disk));
			cbt_meta_bits_went(disk, low, high);
			again = true;
		}
		spin_lock_irq(&disk->lock);
		if (error) {
			cbt_generations_flush_failed(&disk->generations);
			queue_delayed_work(cbt_slow_wq, &disk->clear_work, HZ);
		} else {
			cbt_generations_cleared(&disk->generations);
			cbt_disk_event(disk);
		}
		spin_unlock_irq(&disk->lock);
	}
	mutex_unlock(&disk->target_mutex);
}
