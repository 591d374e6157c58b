/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Writes that hang: after a while their slot turns unresolved and keeps the reader no longer. Their
 * blocks are in a generation that needs a scan, and again when they end at last.
 */
#ifndef CBT_RESOLVE_H
#define CBT_RESOLVE_H

#include "disk.h"

void cbt_resolve_work(struct work_struct *work);

/* A slot was reserved. Under disk->lock. */
static inline void cbt_resolve_arm(struct cbt_disk *disk)
{
	if (disk->resolve_armed)
		return;
	disk->resolve_armed = true;
	queue_delayed_work(cbt_fast_wq, &disk->resolve_work,
			   msecs_to_jiffies(disk->options.unresolved_ms / 4 + 1));
}

#endif
