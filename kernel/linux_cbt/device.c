// SPDX-License-Identifier: GPL-2.0-only
#include "device.h"

#include <linux/capability.h>
#include <linux/compat.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

#include "calls.h"
#include "compat.h"
#include "disk.h"
#include "group.h"

struct call {
	unsigned int command;
	int (*handle)(struct cbt_file *file, void *argument);
	bool owner;
};

/* By number - 1. */
static const struct call calls[] = {
	{ HERALD_CBT_INFO, cbt_call_info, false },
	{ HERALD_CBT_LIST, cbt_call_list, false },
	{ HERALD_CBT_OWN, cbt_call_own, false },
	{ HERALD_CBT_RELEASE, cbt_call_release, true },
	{ HERALD_CBT_ACK, cbt_call_ack, true },
	{ HERALD_CBT_TAG_DISKS, cbt_tag, false },
	{ HERALD_CBT_HOLD, cbt_hold, false },
	{ HERALD_CBT_SEAL, cbt_call_seal, false },
	{ HERALD_CBT_MAP, cbt_call_map, false },
	{ HERALD_CBT_MARK, cbt_call_mark, false },
	{ HERALD_CBT_COOKIE, cbt_call_cookie, false },
	{ HERALD_CBT_STATS, cbt_call_stats, false },
	{ HERALD_CBT_CUT, cbt_cut, false },
	{ HERALD_CBT_DETACH, cbt_call_detach, false },
};

static long cbt_ioctl(struct file *file, unsigned int command, unsigned long address)
{
	struct cbt_file *mine = file->private_data;
	void __user *user = (void __user *)address;
	unsigned int number = _IOC_NR(command);
	const struct call *call;
	void *argument;
	u32 size;
	long error;

	if (_IOC_TYPE(command) != HERALD_CBT_IOCTL_TYPE || number < 1 || number > ARRAY_SIZE(calls))
		return -ENOTTY;
	call = &calls[number - 1];
	/* The size is part of the command: a structure of another version is another command. */
	if (call->command != command)
		return -ENOTTY;
	argument = memdup_user(user, _IOC_SIZE(command));
	if (IS_ERR(argument))
		return PTR_ERR(argument);
	memcpy(&size, argument, sizeof(size));
	if (size != _IOC_SIZE(command)) {
		error = -EINVAL;
		goto out;
	}
	if (call->owner) {
		mutex_lock(&mine->mutex);
		error = mine->disk ? call->handle(mine, argument) : -EPERM;
		mutex_unlock(&mine->mutex);
	} else {
		error = call->handle(mine, argument);
	}
	if (!error && (_IOC_DIR(command) & _IOC_READ) &&
	    copy_to_user(user, argument, _IOC_SIZE(command)))
		error = -EFAULT;
out:
	kfree(argument);
	return error;
}

static int cbt_open(struct inode *inode, struct file *file)
{
	struct cbt_file *mine;

	/* Whoever reads here reads every byte that is written to the disk. */
	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;
	mine = kzalloc(sizeof(*mine), GFP_KERNEL);
	if (!mine)
		return -ENOMEM;
	mutex_init(&mine->mutex);
	file->private_data = mine;
	return stream_open(inode, file);
}

static int cbt_release(struct inode *inode, struct file *file)
{
	struct cbt_file *mine = file->private_data;

	cbt_hold_end_all(mine);
	cbt_disown(mine);
	kfree(mine);
	return 0;
}

static __poll_t cbt_poll(struct file *file, poll_table *table)
{
	struct cbt_file *mine = file->private_data;
	struct cbt_disk *disk = READ_ONCE(mine->disk);
	__poll_t ready = 0;

	/* Set once, and kept until the file goes. */
	if (!disk)
		return EPOLLERR;
	poll_wait(file, &disk->wait, table);
	spin_lock_irq(&disk->lock);
	if (disk->gone)
		ready |= EPOLLHUP;
	if (disk->drained < disk->ring.head &&
	    cbt_ring_slot(&disk->ring, disk->drained)->state != HERALD_CBT_RESERVED)
		ready |= EPOLLIN | EPOLLRDNORM;
	if (disk->events != disk->events_seen)
		ready |= EPOLLPRI;
	spin_unlock_irq(&disk->lock);
	return ready;
}

static int cbt_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct cbt_file *mine = file->private_data;
	struct cbt_disk *disk = READ_ONCE(mine->disk);
	u64 offset = (u64)vma->vm_pgoff << PAGE_SHIFT;

	if (!disk)
		return -EPERM;
	/* Shared: a private mapping could be written, to no effect but confusion. */
	if ((vma->vm_flags & (VM_WRITE | VM_EXEC)) || !(vma->vm_flags & VM_SHARED))
		return -EPERM;
	cbt_forbid_writing(vma);
	vma->vm_pgoff = 0;
	switch (offset) {
	case HERALD_CBT_MMAP_HEADER:
		return remap_vmalloc_range(vma, disk->header, 0);
	case HERALD_CBT_MMAP_SLOTS:
		return disk->slots ? remap_vmalloc_range(vma, disk->slots, 0) : -EINVAL;
	case HERALD_CBT_MMAP_PAYLOAD:
		return cbt_payload_mmap(&disk->payload, vma);
	default:
		return -EINVAL;
	}
}

static const struct file_operations cbt_file_operations = {
	.owner = THIS_MODULE,
	.open = cbt_open,
	.release = cbt_release,
	.unlocked_ioctl = cbt_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.poll = cbt_poll,
	.mmap = cbt_mmap,
};

static struct miscdevice cbt_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = HERALD_CBT_DEVICE,
	.fops = &cbt_file_operations,
	.mode = 0600,
};

int cbt_device_register(void)
{
	return misc_register(&cbt_device);
}

void cbt_device_unregister(void)
{
	misc_deregister(&cbt_device);
}
