// SPDX-License-Identifier: GPL-2.0-only
#include "resolve.h"

#include <linux/jiffies.h>

#include "write.h"

void cbt_resolve_work(struct work_struct *work)
{
	struct cbt_disk *disk = container_of(to_delayed_work(work), struct cbt_disk, resolve_work);
	unsigned long limit = msecs_to_jiffies(disk->options.unresolved_ms);
	bool any = false;

	spin_lock_irq(&disk->lock);
	while (!list_empty(&disk->slotted)) {
		struct cbt_write *write =
			list_first_entry(&disk->slotted, struct cbt_write, slotted);

		if (time_before(jiffies, write->reserved_at + limit))
			break;
		write->hung = true;
		list_move_tail(&write->slotted, &disk->hung);
		cbt_disk_mark(disk, write->overlap.first,
			      write->overlap.last - write->overlap.first + 1);
		cbt_slot_commit(write->slot, HERALD_CBT_UNRESOLVED, 0);
		disk->counts.unresolved++;
		any = true;
	}
	disk->resolve_armed = !list_empty(&disk->slotted);
	if (disk->resolve_armed)
		queue_delayed_work(cbt_fast_wq, &disk->resolve_work,
				   msecs_to_jiffies(disk->options.unresolved_ms / 4 + 1));
	if (any)
		cbt_disk_event(disk);
	spin_unlock_irq(&disk->lock);
}
