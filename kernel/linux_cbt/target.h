/* SPDX-License-Identifier: GPL-2.0-only */
/* The device-mapper side: table line, map, end_io, suspend, resume, status. */
#ifndef CBT_TARGET_H
#define CBT_TARGET_H

int cbt_target_register(void);
void cbt_target_unregister(void);

#endif
