// SPDX-License-Identifier: GPL-2.0-only
#include "payload.h"

#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/vmalloc.h>

#include "compat.h"

static int allocate_blocks(struct cbt_payload *payload, unsigned int order, u64 bytes)
{
	unsigned int block_shift = PAGE_SHIFT + order;
	unsigned int blocks = bytes >> block_shift;
	unsigned int index;

	payload->vecs = kvcalloc(blocks, sizeof(*payload->vecs), GFP_KERNEL);
	if (!payload->vecs)
		return -ENOMEM;
	payload->order = order;
	payload->block_shift = block_shift;
	payload->blocks = blocks;
	for (index = 0; index < blocks; index++) {
		/* Zeroed: a reader may look at all of it before the first write. */
		struct page *page =
			alloc_pages(GFP_KERNEL | __GFP_ZERO | __GFP_NORETRY | __GFP_NOWARN, order);

		if (!page) {
			cbt_payload_free(payload);
			return -ENOMEM;
		}
		if (order)
			split_page(page, order);
		payload->vecs[index].bv_page = page;
		payload->vecs[index].bv_len = 1u << block_shift;
		payload->vecs[index].bv_offset = 0;
	}
	payload->bytes = bytes;
	return 0;
}

int cbt_payload_allocate(struct cbt_payload *payload, u64 bytes)
{
	static const unsigned int orders[] = { 9, 6, 3, 0 };
	unsigned int index;

	memset(payload, 0, sizeof(*payload));
	for (index = 0; index < ARRAY_SIZE(orders); index++) {
		if ((PAGE_SIZE << orders[index]) > bytes)
			continue;
		if (!allocate_blocks(payload, orders[index], bytes))
			return 0;
	}
	return -ENOMEM;
}

void cbt_payload_free(struct cbt_payload *payload)
{
	unsigned int block;
	unsigned int page;

	for (block = 0; block < payload->blocks; block++) {
		if (!payload->vecs[block].bv_page)
			break;
		for (page = 0; page < 1u << payload->order; page++)
			__free_page(payload->vecs[block].bv_page + page);
	}
	kvfree(payload->vecs);
	memset(payload, 0, sizeof(*payload));
}

static void *address_of(const struct cbt_payload *payload, u64 offset)
{
	u64 at = offset & (payload->bytes - 1);

	/* Allocated without highmem: always mapped. */
	return page_address(payload->vecs[at >> payload->block_shift].bv_page) +
	       (at & ((1u << payload->block_shift) - 1));
}

void cbt_payload_copy(const struct cbt_payload *payload, u64 offset, const struct bio *bio)
{
	const struct bio_vec *vec = bio->bi_io_vec + bio->bi_iter.bi_idx;
	unsigned int skip = bio->bi_iter.CBT_ITER_DONE;
	unsigned int left = bio->bi_iter.bi_size;
	unsigned int room = 0; /* at `to`: blocks are contiguous only within themselves */
	void *to = NULL;

	/* One whole page, as most are. */
	if (left == PAGE_SIZE && vec->bv_len - skip >= PAGE_SIZE &&
	    PAGE_ALIGNED(vec->bv_offset + skip)) {
		copy_page(address_of(payload, offset),
			  page_address(vec->bv_page) + vec->bv_offset + skip);
		return;
	}
	/* By hand: the macros look at each vector four times, and a vector is a page or more. */
	for (; left; vec++, skip = 0) {
		void *from = page_address(vec->bv_page) + vec->bv_offset + skip;
		unsigned int bytes = min(vec->bv_len - skip, left);
		unsigned int some;

		left -= bytes;
		for (; bytes; bytes -= some) {
			if (!room) {
				to = address_of(payload, offset);
				room = (1u << payload->block_shift) -
				       (offset & ((1u << payload->block_shift) - 1));
			}
			some = min(bytes, room);
			/*
			 * Five times faster than memcpy where that is not built of string
			 * instructions.
			 */
			if (some >= PAGE_SIZE && PAGE_ALIGNED(to) && PAGE_ALIGNED(from)) {
				some = PAGE_SIZE;
				copy_page(to, from);
			} else {
				memcpy(to, from, some);
			}
			to += some;
			from += some;
			offset += some;
			room -= some;
		}
	}
}

void cbt_payload_swap(const struct cbt_payload *payload, u64 offset, struct bio *bio)
{
	u64 at = offset & (payload->bytes - 1);

	bio->bi_io_vec = payload->vecs;
	bio->bi_iter.bi_idx = at >> payload->block_shift;
	bio->bi_iter.CBT_ITER_DONE = at & ((1u << payload->block_shift) - 1);
}

int cbt_payload_mmap(const struct cbt_payload *payload, struct vm_area_struct *vma)
{
	unsigned long address = vma->vm_start;
	unsigned int block;
	unsigned int page;

	if (!payload->bytes || vma->vm_end - vma->vm_start > payload->bytes)
		return -EINVAL;
	for (block = 0; block < payload->blocks; block++) {
		for (page = 0; page < 1u << payload->order; page++) {
			int error;

			if (address >= vma->vm_end)
				return 0;
			error = vm_insert_page(vma, address, payload->vecs[block].bv_page + page);
			if (error)
				return error;
			address += PAGE_SIZE;
		}
		cond_resched();
	}
	return 0;
}
