/* SPDX-License-Identifier: GPL-2.0-only */
/* Sealing of generations, the flush, and the end of their bits. */
#ifndef CBT_CLEARING_H
#define CBT_CLEARING_H

#include "disk.h"

/* A flush of the disk for each sealed generation: not more often than this. */
#define CBT_SEAL_MS 500u

void cbt_clear_work(struct work_struct *work);

/* Seals now if that may be. Under disk->lock. */
bool cbt_seal(struct cbt_disk *disk);

#endif
