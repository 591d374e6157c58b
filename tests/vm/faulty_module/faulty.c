// SPDX-License-Identifier: GPL-2.0-only
/*
 * Does on purpose what the driver must never do, once for each load: `insmod faulty.ko fault=...`.
 * tests/vm/driver_debug.py loads it to prove that each of these would be noticed.
 */
#include <linux/delay.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/string.h>

static char *fault = "";
module_param(fault, charp, 0444);
MODULE_PARM_DESC(fault, "use_after_free, overrun, inversion, sleep or leak");

static DEFINE_MUTEX(first);
static DEFINE_MUTEX(second);
static DEFINE_SPINLOCK(spin);

static void read_after(size_t offset, bool freed)
{
	volatile char *bytes = kmalloc(100, GFP_KERNEL);

	if (!bytes)
		return;
	if (freed)
		kfree((void *)bytes);
	bytes[offset];
	if (!freed)
		kfree((void *)bytes);
}

static void invert(void)
{
	mutex_lock(&first);
	mutex_lock(&second);
	mutex_unlock(&second);
	mutex_unlock(&first);
	mutex_lock(&second);
	mutex_lock(&first);
	mutex_unlock(&first);
	mutex_unlock(&second);
}

static void sleep_atomically(void)
{
	spin_lock(&spin);
	msleep(1);
	spin_unlock(&spin);
}

static void leak(void)
{
	int i;

	/* Several: a register or an old stack frame may still hold the address of one. */
	for (i = 0; i < 16; i++)
		if (!kmalloc(1000, GFP_KERNEL))
			break;
}

static int __init faulty_init(void)
{
	if (!strcmp(fault, "use_after_free"))
		read_after(8, true);
	else if (!strcmp(fault, "overrun"))
		read_after(100, false);
	else if (!strcmp(fault, "inversion"))
		invert();
	else if (!strcmp(fault, "sleep"))
		sleep_atomically();
	else if (!strcmp(fault, "leak"))
		leak();
	else
		return -EINVAL;
	return 0;
}

static void __exit faulty_exit(void)
{
}

module_init(faulty_init);
module_exit(faulty_exit);
MODULE_DESCRIPTION("Faults on purpose");
MODULE_LICENSE("GPL");
