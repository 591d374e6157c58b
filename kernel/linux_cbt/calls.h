/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The ioctls of one disk. Each gets a structure of the right size, copied in; what it changes is
 * copied back. The `owner` ones are called under file->mutex with file->disk set.
 */
#ifndef CBT_CALLS_H
#define CBT_CALLS_H

struct cbt_file;

int cbt_call_info(struct cbt_file *file, void *argument);
int cbt_call_list(struct cbt_file *file, void *argument);
int cbt_call_own(struct cbt_file *file, void *argument);
int cbt_call_release(struct cbt_file *file, void *argument);
int cbt_call_ack(struct cbt_file *file, void *argument);
int cbt_call_seal(struct cbt_file *file, void *argument);
int cbt_call_map(struct cbt_file *file, void *argument);
int cbt_call_mark(struct cbt_file *file, void *argument);
int cbt_call_cookie(struct cbt_file *file, void *argument);
int cbt_call_stats(struct cbt_file *file, void *argument);
int cbt_call_detach(struct cbt_file *file, void *argument);

/* The file closes: its disk has no owner any more. */
void cbt_disown(struct cbt_file *file);

#endif
