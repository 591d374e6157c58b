// SPDX-License-Identifier: GPL-2.0-only
#include "resolve.h"

#include <linux/jiffies.h>

#include "write.h"

void cbt_resolve_work(struct work_struct *work)
{
	struct cbt_disk *disk = container_of(to_delayed_work(work), struct cbt_disk, resolve_work);
	unsigned long limit = msecs_to_jiffies(disk->options.unresolved_ms);
	struct cbt_overlap *at;
	bool any = false;
	bool more = false;

	spin_lock_irq(&disk->lock);
	/* All in flight are there: a list of those that have slots would cost each write. */
	for (at = cbt_overlap_first(&disk->overlaps); at; at = cbt_overlap_next(at)) {
		struct cbt_write *write = container_of(at, struct cbt_write, overlap);

		if (write->stage != CBT_STAGE_SUBMITTED || write->hung)
			continue;
		if (time_before(jiffies, write->reserved_at + limit)) {
			more = true;
			continue;
		}
		write->hung = true;
		list_add_tail(&write->hung_entry, &disk->hung);
		cbt_disk_mark(disk, write->overlap.first,
			      write->overlap.last - write->overlap.first + 1);
		if (write->slot)
			cbt_slot_commit(write->slot, HERALD_CBT_UNRESOLVED, 0);
		else
			cbt_write_slotless_ended(disk);
		disk->counts.unresolved++;
		any = true;
	}
	disk->resolve_armed = more;
	if (disk->resolve_armed)
		queue_delayed_work(cbt_fast_wq, &disk->resolve_work,
				   msecs_to_jiffies(disk->options.unresolved_ms / 4 + 1));
	if (any)
		cbt_disk_event(disk);
	spin_unlock_irq(&disk->lock);
}
