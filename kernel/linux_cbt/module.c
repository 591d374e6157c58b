// SPDX-License-Identifier: GPL-2.0-only
#include <linux/atomic.h>
#include <linux/ktime.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/workqueue.h>

#include "../core/clock.h"
#include "device.h"
#include "disk.h"
#include "target.h"

#define CREATE_TRACE_POINTS
#include "trace.h"

/* Level 1; guards cbt_disks. */
DEFINE_MUTEX(cbt_disks_mutex);
LIST_HEAD(cbt_disks);
struct workqueue_struct *cbt_fast_wq;
struct workqueue_struct *cbt_slow_wq;

static unsigned int memory_mib_max;
module_param(memory_mib_max, uint, 0644);
MODULE_PARM_DESC(memory_mib_max, "Rings and maps of all disks, MiB; 0: a quarter of the memory");

static atomic64_t memory_used = ATOMIC64_INIT(0);
static u64 clock_last;

u64 cbt_now(void)
{
	/* The cheaper one may step back by a little; what is made of it never does. */
	return cbt_clock_next(&clock_last, ktime_get_real_fast_ns());
}

u64 cbt_memory_used(void)
{
	return atomic64_read(&memory_used);
}

u64 cbt_memory_max(void)
{
	unsigned int mib = READ_ONCE(memory_mib_max);

	return mib ? (u64)mib << 20 : ((u64)totalram_pages() << PAGE_SHIFT) / 4;
}

bool cbt_memory_take(u64 bytes)
{
	if (atomic64_add_return(bytes, &memory_used) <= cbt_memory_max())
		return true;
	atomic64_sub(bytes, &memory_used);
	return false;
}

void cbt_memory_give(u64 bytes)
{
	atomic64_sub(bytes, &memory_used);
}

static int __init cbt_init(void)
{
	int error = -ENOMEM;

	/* Parked writes are what memory is freed by: these must go on when there is none. */
	cbt_fast_wq = alloc_workqueue("herald_cbt", WQ_MEM_RECLAIM | WQ_HIGHPRI | WQ_UNBOUND, 0);
	if (!cbt_fast_wq)
		return error;
	cbt_slow_wq = alloc_workqueue("herald_cbt_slow", WQ_MEM_RECLAIM | WQ_UNBOUND, 0);
	if (!cbt_slow_wq)
		goto fail_slow;
	error = cbt_device_register();
	if (error)
		goto fail_device;
	error = cbt_target_register();
	if (error)
		goto fail_target;
	return 0;
fail_target:
	cbt_device_unregister();
fail_device:
	destroy_workqueue(cbt_slow_wq);
fail_slow:
	destroy_workqueue(cbt_fast_wq);
	return error;
}

static void __exit cbt_exit(void)
{
	cbt_target_unregister();
	cbt_device_unregister();
	destroy_workqueue(cbt_slow_wq);
	destroy_workqueue(cbt_fast_wq);
}

module_init(cbt_init);
module_exit(cbt_exit);

MODULE_DESCRIPTION("Change tracking for disaster recovery");
MODULE_AUTHOR("The Herald authors");
MODULE_LICENSE("GPL");
MODULE_ALIAS("dm-cbt");
