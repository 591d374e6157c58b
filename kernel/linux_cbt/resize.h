/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A new table of another length: a resize slot; what was added is dirty, what is gone is clipped,
 * the rest is as it was.
 */
#ifndef CBT_RESIZE_H
#define CBT_RESIZE_H

#include "disk.h"

/* In ctr: memory for larger maps. */
int cbt_resize_prepare(struct cbt_target *target);
/* In preresume, while the disk is suspended, under target_mutex. */
void cbt_resize_apply(struct cbt_target *target);

#endif
