/* SPDX-License-Identifier: GPL-2.0-only */
/* What differs between kernels, behind one name each. probed.h says what this kernel has. */
#ifndef CBT_COMPAT_H
#define CBT_COMPAT_H

#include <linux/blkdev.h>
#include <linux/highmem.h>
#include <linux/mm.h>

#include "probed.h"

#if !defined(CONFIG_64BIT) || defined(CONFIG_HIGHMEM)
#error "64-bit kernels only: all memory is mapped there, and words of 64 bits are atomic"
#endif
#ifdef CONFIG_PREEMPT_RT
#error "no PREEMPT_RT: locks of many disks are taken with interrupts off"
#endif

#ifdef CBT_HAVE_BLK_OPF
#define CBT_OPF blk_opf_t
#else
#define CBT_OPF unsigned int
#endif

static inline int cbt_issue_flush(struct block_device *bdev)
{
#ifdef CBT_HAVE_FLUSH_TAKES_BDEV
	return blkdev_issue_flush(bdev);
#else
	return blkdev_issue_flush(bdev, GFP_NOIO);
#endif
}

static inline void cbt_bio_init(struct bio *bio, struct block_device *bdev, struct bio_vec *vec,
				CBT_OPF opf)
{
#ifdef CBT_HAVE_BIO_INIT_TAKES_BDEV
	bio_init(bio, bdev, vec, 1, opf);
#else
	bio_init(bio, vec, 1);
	bio_set_dev(bio, bdev);
	bio->bi_opf = opf;
#endif
}

/* How far into its vector an iterator is. */
#ifdef CBT_HAVE_BVEC_DONE
#define CBT_ITER_DONE bi_bvec_done
#elif defined(CBT_HAVE_BVEC_OFFSET)
#define CBT_ITER_DONE bi_offset
#else
#error "struct bvec_iter has a third name for it"
#endif

/* Nor executing, by mprotect() later. */
static inline void cbt_forbid_writing(struct vm_area_struct *vma)
{
#ifdef CBT_HAVE_VM_FLAGS_CLEAR
	vm_flags_clear(vma, VM_MAYWRITE | VM_MAYEXEC);
	vm_flags_set(vma, VM_DONTEXPAND | VM_DONTDUMP);
#else
	vma->vm_flags &= ~(VM_MAYWRITE | VM_MAYEXEC);
	vma->vm_flags |= VM_DONTEXPAND | VM_DONTDUMP;
#endif
}

/* Is the disk on its way out? */
static inline bool cbt_disk_is_dying(struct gendisk *disk)
{
#ifdef CBT_HAVE_GD_DEAD
	if (test_bit(GD_DEAD, &disk->state))
		return true;
#endif
	return blk_queue_dying(disk->queue);
}

static inline u64 cbt_bdev_sectors(struct block_device *bdev)
{
#ifdef CBT_HAVE_BDEV_NR_SECTORS
	return bdev_nr_sectors(bdev);
#else
	return i_size_read(bdev->bd_inode) >> SECTOR_SHIFT;
#endif
}

#endif
