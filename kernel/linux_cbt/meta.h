/* SPDX-License-Identifier: GPL-2.0-only */
/* The meta device; not there yet. */
#ifndef CBT_META_H
#define CBT_META_H

#include "disk.h"

struct cbt_write;

static inline int cbt_meta_create(struct cbt_disk *disk, struct cbt_target *target) { return -EOPNOTSUPP; }
static inline void cbt_meta_free(struct cbt_disk *disk) {}
static inline bool cbt_meta_enter(struct cbt_disk *disk, struct cbt_write *write) { return true; }
static inline void cbt_meta_park(struct cbt_disk *disk, struct cbt_write *write) {}
static inline void cbt_meta_leave(struct cbt_disk *disk, struct cbt_write *write) {}
static inline void cbt_meta_bits_went(struct cbt_disk *disk) {}
static inline void cbt_meta_stop(struct cbt_disk *disk, struct cbt_target *target) {}
static inline void cbt_meta_suspend(struct cbt_disk *disk, struct cbt_target *target) {}
static inline void cbt_meta_resume(struct cbt_disk *disk, struct cbt_target *target) {}
static inline void cbt_meta_resized(struct cbt_disk *disk) {}
static inline int cbt_meta_gap_closed(struct cbt_disk *disk) { return 0; }
static inline int cbt_meta_marked(struct cbt_disk *disk, u64 sector, u64 sectors) { return 0; }
static inline int cbt_meta_cookie_write(struct cbt_disk *disk, const void *data, u32 bytes) { return -EOPNOTSUPP; }
static inline int cbt_meta_cookie_read(struct cbt_disk *disk, void *data, u32 *bytes) { return -EOPNOTSUPP; }
static inline void cbt_meta_stats(struct cbt_disk *disk, struct herald_cbt_stats_abi *stats) {}

#endif
