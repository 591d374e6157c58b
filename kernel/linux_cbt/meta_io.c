// SPDX-License-Identifier: GPL-2.0-only
/* Reading and writing the blocks of a meta device, one at a time, from a worker that may sleep. */
#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/device-mapper.h>
#include <linux/mm.h>

#include "compat.h"
#include "meta_state.h"

#define BLOCK_SECTORS (CBT_META_BLOCK_BYTES >> SECTOR_SHIFT)

static int transfer(struct block_device *bdev, u64 sector, void *buffer, u32 bytes, CBT_OPF opf)
{
	struct bio_vec vec;
	struct bio bio;
	int error;

	/* The buffers are whole pages, contiguous. */
	cbt_bio_init(&bio, bdev, &vec, opf);
	bio.bi_iter.bi_sector = sector;
	__bio_add_page(&bio, virt_to_page(buffer), bytes, offset_in_page(buffer));
	error = submit_bio_wait(&bio);
	bio_uninit(&bio);
	return error;
}

int cbt_meta_read_pair(struct cbt_meta *meta, u64 pair)
{
	return transfer(meta->target->meta->bdev, pair * 2 * BLOCK_SECTORS, meta->pair,
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
	return transfer(meta->target->meta->bdev, place * BLOCK_SECTORS, block,
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
	return transfer(meta->target->origin->bdev, sector, meta->pair, bytes,
			REQ_OP_READ | REQ_SYNC);
}
