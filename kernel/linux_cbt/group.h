/* SPDX-License-Identifier: GPL-2.0-only */
/* Calls over several disks: tag, hold, cut. */
#ifndef CBT_GROUP_H
#define CBT_GROUP_H

#include "disk.h"

struct cbt_file;

int cbt_tag(struct cbt_file *file, void *argument);
int cbt_hold(struct cbt_file *file, void *argument);
int cbt_cut(struct cbt_file *file, void *argument);

/* Ends the disk's hold, if it is `file`'s (NULL: anyone's). */
void cbt_hold_end(struct cbt_disk *disk, struct cbt_file *file, u32 cause);
/* Of all disks: the file closes. */
void cbt_hold_end_all(struct cbt_file *file);
void cbt_hold_work(struct work_struct *work);

#endif
