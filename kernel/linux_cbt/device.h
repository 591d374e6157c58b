/* SPDX-License-Identifier: GPL-2.0-only */
/* The character device: files, the table of ioctls, mmap and poll. */
#ifndef CBT_DEVICE_H
#define CBT_DEVICE_H

#include <linux/mutex.h>

struct cbt_disk;

struct cbt_file {
	struct mutex mutex;    /* level 2; guards disk */
	struct cbt_disk *disk; /* that it owns, referenced; NULL */
};

int cbt_device_register(void);
void cbt_device_unregister(void);

#endif
