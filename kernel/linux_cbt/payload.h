/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The payload area's memory: blocks of equal size, physically contiguous as far as memory allows,
 * so that a bio that writes from it has few segments (order-0 pages make 256 for each MiB, over
 * virtio's 254). Pages are counted one by one: what is mapped outlives the disk.
 * Promise: [offset, offset + bytes) that does not wrap is one run of the table of vectors, which
 * never changes; a bio may point into it for as long as the area lives.
 * Callers: allocation and freeing may sleep; the others run anywhere.
 */
#ifndef CBT_PAYLOAD_H
#define CBT_PAYLOAD_H

#include <linux/bio.h>
#include <linux/types.h>

struct vm_area_struct;

struct cbt_payload {
	struct bio_vec *vecs;
	u64 bytes;		  /* a power of two; 0: none */
	unsigned int block_shift; /* log2 of bytes */
	unsigned int order;
	unsigned int blocks;
};

int cbt_payload_allocate(struct cbt_payload *payload, u64 bytes);
void cbt_payload_free(struct cbt_payload *payload);

/* Copies a bio's data to `offset`. */
void cbt_payload_copy(const struct cbt_payload *payload, u64 offset, const struct bio *bio);

/*
 * May the bio's vectors be replaced? dm's own clone shares those of the bio that it was cloned from
 * and never frees them; a bio that owns its vectors must keep them.
 */
static inline bool cbt_payload_can_swap(const struct bio *bio)
{
	return bio_flagged((struct bio *)bio, BIO_CLONED) && !bio->bi_max_vecs;
}

/* Makes the bio write from `offset`. */
void cbt_payload_swap(const struct cbt_payload *payload, u64 offset, struct bio *bio);

int cbt_payload_mmap(const struct cbt_payload *payload, struct vm_area_struct *vma);

#endif
