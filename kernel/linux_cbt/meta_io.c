// SPDX-License-Identifier: GPL-2.0-only
/* Reading and writing the blocks of a meta device, one at a time, from a worker that may sleep. */
#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/device-mapper.h>
#include <linux/mm.h>

#include "compat.h"
#include "meta.h"
#include "meta_state.h"

#define BLOCK_SECTORS (CBT_META_BLOCK_BYTES >> SECTOR_SHIFT)

static void transferred(struct bio *bio)
{
	complete(bio->bi_private);
}

/*
 * One transfer at a time. A device that does not answer keeps the bio and its own copy of the data:
 * until it gives them back, there is no other transfer, and nobody waits.
 */
static int transfer(struct cbt_meta *meta, struct block_device *bdev, u64 sector, void *buffer,
		    u32 bytes, CBT_OPF opf)
{
	bool writing = op_is_write(opf);
	struct cbt_meta_io *io = &meta->io;
	struct bio *bio = &io->bio;
	int error;

	if (io->user) {
		if (!try_wait_for_completion(&io->done))
			return -ETIMEDOUT;
		bio_uninit(bio);
		io->user = NULL;
	}
	if (writing)
		memcpy(io->buffer, buffer, bytes);
	cbt_bio_init(bio, bdev, &io->vec, opf);
	bio->bi_iter.bi_sector = sector;
	bio->bi_end_io = transferred;
	bio->bi_private = &io->done;
	/* The buffer is whole pages, contiguous. */
	__bio_add_page(bio, virt_to_page(io->buffer), bytes, 0);
	reinit_completion(&io->done);
	io->user = meta->target;
	submit_bio(bio);
	if (!wait_for_completion_io_timeout(&io->done,
					    msecs_to_jiffies(writing ? CBT_META_DEADLINE_MS
								     : CBT_META_READ_MS)))
		return -ETIMEDOUT;
	io->user = NULL;
	error = blk_status_to_errno(bio->bi_status);
	bio_uninit(bio);
	if (!writing && !error)
		memcpy(buffer, io->buffer, bytes);
	return error;
}

void cbt_meta_io_end(struct cbt_meta *meta, struct cbt_target *target)
{
	if (meta->io.user != target)
		return;
	wait_for_completion_io(&meta->io.done);
	bio_uninit(&meta->io.bio);
	meta->io.user = NULL;
}

int cbt_meta_read_pair(struct cbt_meta *meta, u64 pair)
{
	return transfer(meta, meta->target->meta->bdev, pair * 2 * BLOCK_SECTORS, meta->pair,
			2 * CBT_META_BLOCK_BYTES, REQ_OP_READ | REQ_SYNC);
}

/* Durable when it returns; and what was written before it is, too. */
int cbt_meta_write(struct cbt_meta *meta, u64 place, void *block)
{
	if (!meta->ours)
		return -EIO;
	spin_lock_irq(&meta->disk->lock);
	meta->writes++;
	spin_unlock_irq(&meta->disk->lock);
	return transfer(meta, meta->target->meta->bdev, place * BLOCK_SECTORS, block,
			CBT_META_BLOCK_BYTES, REQ_OP_WRITE | REQ_SYNC | REQ_PREFLUSH | REQ_FUA);
}

int cbt_meta_write_superblock(struct cbt_meta *meta)
{
	meta->superblock.sequence++;
	cbt_superblock_encode(&meta->superblock, meta->block);
	return cbt_meta_write(meta,
			      cbt_meta_place(CBT_META_PAIR_SUPERBLOCK, meta->superblock.sequence),
			      meta->block);
}

int cbt_meta_write_activity(struct cbt_meta *meta, u32 count)
{
	u64 sequence = ++meta->activity_sequence;

	cbt_activity_encode(meta->numbers, count, sequence, meta->superblock.tracking, meta->block);
	return cbt_meta_write(meta, cbt_meta_place(CBT_META_PAIR_ACTIVITY, sequence), meta->block);
}

int cbt_meta_write_bitmap(struct cbt_meta *meta, u64 index)
{
	struct cbt_disk *disk = meta->disk;
	u64 sequence = ++meta->bitmap_sequences[index];
	bool any;

	/* In one piece: a bit that moves from one generation to the other is in one of them. */
	spin_lock_irq(&disk->lock);
	clear_bit(index, meta->bitmap_stale);
	any = cbt_bitmap_fill(disk->maps[0].words, disk->maps[1].words,
			      cbt_bitmap_words(disk->maps[0].blocks), index, meta->block);
	spin_unlock_irq(&disk->lock);
	if (any)
		set_bit(index, meta->bitmap_any);
	else
		clear_bit(index, meta->bitmap_any);
	cbt_meta_seal(meta->block, CBT_META_BITMAP, sequence, index, meta->superblock.tracking);
	return cbt_meta_write(meta, cbt_meta_place(CBT_META_PAIR_BITMAP + index, sequence),
			      meta->block);
}

int cbt_origin_read(struct cbt_meta *meta, u64 sector, u32 bytes)
{
	return transfer(meta, meta->target->origin->bdev, sector, meta->pair, bytes,
			REQ_OP_READ | REQ_SYNC);
}
