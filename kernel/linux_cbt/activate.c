// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a meta device says of the time since the last activation: which blocks are dirty, and
 * whether that is all. Recovery rule: docs/formats/dirty_map.md
 */
#include <linux/ktime.h>
#include <linux/string.h>

#include "compat.h"
#include "meta.h"
#include "meta_state.h"

static u32 worse(u32 gap, u32 cause)
{
	/* The first that was found is the one that is named. */
	return gap ? gap : cause;
}

static u32 load_activity(struct cbt_meta *meta)
{
	struct cbt_disk *disk = meta->disk;
	const u8 *block = meta->pair;
	u32 count;
	u32 index;
	int which;

	if (cbt_meta_read_pair(meta, CBT_META_PAIR_ACTIVITY))
		return HERALD_CBT_CAUSE_META_UNREADABLE;
	which = cbt_meta_newest(meta->pair, CBT_META_ACTIVITY, 0, meta->superblock.tracking,
				&meta->activity_sequence);
	/* Beyond the disk they may be, as it may have shrunk since; not beyond the bitmap. */
	if (which < 0 || !cbt_activity_decode(block + which * CBT_META_BLOCK_BYTES,
					      meta->bitmap_blocks * CBT_META_WORDS_PER_BLOCK,
					      meta->numbers, &count))
		return HERALD_CBT_CAUSE_META_UNREADABLE;
	spin_lock_irq(&disk->lock);
	cbt_activity_load(&meta->activity, meta->numbers, count);
	for (index = 0; index < count; index++)
		cbt_bitmap_set(cbt_current_map(disk), (u64)meta->numbers[index] * 64, 64);
	spin_unlock_irq(&disk->lock);
	return HERALD_CBT_CAUSE_NONE;
}

static u32 load_bitmap(struct cbt_meta *meta, u64 blocks)
{
	struct cbt_disk *disk = meta->disk;
	struct cbt_bitmap *map = cbt_current_map(disk);
	u32 gap = HERALD_CBT_CAUSE_NONE;
	bool any = false;
	u64 index;

	for (index = 0; index < blocks; index++) {
		int which = -1;

		if (!cbt_meta_read_pair(meta, CBT_META_PAIR_BITMAP + index))
			which = cbt_meta_newest(meta->pair, CBT_META_BITMAP, index,
						meta->superblock.tracking,
						&meta->bitmap_sequences[index]);
		if (which < 0) {
			gap = HERALD_CBT_CAUSE_META_UNREADABLE;
			continue;
		}
		if (cbt_bitmap_decode((u8 *)meta->pair + which * CBT_META_BLOCK_BYTES, index,
				      map->words, cbt_bitmap_words(map->blocks))) {
			set_bit(index, meta->bitmap_any);
			any = true;
		}
	}
	if (any) {
		/* The last word may have bits beyond a disk that shrank. */
		map->low = 0;
		map->high = cbt_bitmap_words(map->blocks);
		if (map->blocks % 64)
			map->words[map->high - 1] &= ~0ull >> (64 - map->blocks % 64);
	}
	return gap;
}

static void load_cookie(struct cbt_meta *meta)
{
	const void *data;
	u32 bytes;
	int which;

	if (cbt_meta_read_pair(meta, CBT_META_PAIR_COOKIE))
		return;
	which = cbt_meta_newest(meta->pair, CBT_META_COOKIE, 0, meta->superblock.tracking,
				&meta->cookie_sequence);
	if (which < 0)
		return;
	data = cbt_cookie_decode((u8 *)meta->pair + which * CBT_META_BLOCK_BYTES, &bytes);
	if (!data)
		return;
	memcpy(meta->cookie, data, bytes);
	meta->cookie_bytes = bytes;
}

/* What the state says; the digests speak for a disk that nobody tracked meanwhile. */
static u32 judge(struct cbt_meta *meta)
{
	const struct cbt_superblock *superblock = &meta->superblock;
	struct cbt_disk *disk = meta->disk;
	u64 start;
	u64 end;

	if (superblock->gap)
		return superblock->gap;
	if (superblock->state == CBT_META_NEW)
		return HERALD_CBT_CAUSE_META_NEW;
	if (superblock->flags & CBT_META_FLAG_GIVEN_UP)
		return HERALD_CBT_CAUSE_PERSISTENCE_LOST;
	if (superblock->state == CBT_META_DETACHED)
		return HERALD_CBT_CAUSE_DETACHED;
	if (superblock->flags & CBT_META_FLAG_AWAY)
		return HERALD_CBT_CAUSE_NOT_DETACHED;
	if (superblock->flags & CBT_META_FLAG_WATCH_OPEN)
		return HERALD_CBT_CAUSE_WATCH_OPEN;
	/* A disk that shrank while away lost the end that could be compared. */
	if (superblock->sectors > disk->sectors)
		return HERALD_CBT_CAUSE_CHANGED;
	if (cbt_watch_read(meta, superblock->sectors, &start, &end))
		return HERALD_CBT_CAUSE_WATCH_READ;
	if (start != superblock->watch_start || end != superblock->watch_end)
		return HERALD_CBT_CAUSE_CHANGED;
	return HERALD_CBT_CAUSE_NONE;
}

/*
 * Size, digests and flags of from now on. Flushed first, or the digests were of what a power cut
 * takes back, and it would be found changed after it. Without digests the flag says so.
 */
static void renew(struct cbt_meta *meta)
{
	struct cbt_superblock *superblock = &meta->superblock;

	superblock->sectors = meta->disk->sectors;
	superblock->flags = 0;
	if (cbt_issue_flush(meta->target->origin->bdev) ||
	    cbt_watch_read(meta, superblock->sectors, &superblock->watch_start,
			   &superblock->watch_end))
		superblock->flags |= CBT_META_FLAG_WATCH_OPEN;
	spin_lock_irq(&meta->disk->lock);
	meta->watch_open = superblock->flags & CBT_META_FLAG_WATCH_OPEN;
	spin_unlock_irq(&meta->disk->lock);
}

void cbt_meta_activate(struct cbt_meta *meta)
{
	struct cbt_superblock *superblock = &meta->superblock;
	struct cbt_disk *disk = meta->disk;
	u32 cause = HERALD_CBT_CAUSE_NONE;
	u64 blocks = cbt_meta_bitmap_blocks(disk->sectors);
	u64 before;
	u64 index;
	u32 gap;

	if (cbt_meta_read_pair(meta, CBT_META_PAIR_SUPERBLOCK) ||
	    !cbt_superblock_decode(meta->pair, superblock))
		cause = HERALD_CBT_CAUSE_META_UNREADABLE;
	else if (superblock->bitmap_blocks > meta->bitmap_blocks)
		cause = HERALD_CBT_CAUSE_META_UNREADABLE;
	else if (superblock->bitmap_blocks < blocks)
		cause = HERALD_CBT_CAUSE_META_FULL;
	if (cause) {
		/* Nothing is written to a device that may be anyone's. */
		meta->ours = cause == HERALD_CBT_CAUSE_META_FULL;
		spin_lock_irq(&disk->lock);
		disk->gap = cause;
		cbt_meta_give_up(meta, cause);
		spin_unlock_irq(&disk->lock);
		return;
	}
	meta->ours = true;
	meta->bitmap_blocks = superblock->bitmap_blocks;
	/* Where a pair cannot be read, or is not yet: above all that may be there. */
	meta->activity_sequence = (superblock->activation + 1) << 32;
	meta->cookie_sequence = meta->activity_sequence;
	for (index = 0; index < meta->bitmap_blocks; index++)
		meta->bitmap_sequences[index] = meta->activity_sequence;
	before = superblock->sectors;
	gap = judge(meta);
	gap = worse(gap, load_activity(meta));
	gap = worse(gap, load_bitmap(meta, blocks));
	load_cookie(meta);

	spin_lock_irq(&disk->lock);
	memcpy(disk->tracking, superblock->tracking, sizeof(disk->tracking));
	disk->activation = superblock->activation + 1;
	if (before < disk->sectors)
		cbt_disk_mark(disk, before, disk->sectors - before);
	if (!cbt_bitmap_is_empty(cbt_current_map(disk)))
		cbt_generations_need_scan(&disk->generations);
	disk->gap = gap;
	if (gap)
		disk->counts.causes[gap]++;
	spin_unlock_irq(&disk->lock);

	if (gap && !superblock->gap) {
		superblock->gap_cause = gap;
		superblock->gap_ns = ktime_get_real_ns();
	}
	superblock->gap = gap;
	superblock->activation++;
	superblock->state = CBT_META_ACTIVE;
	renew(meta);
	/* What was added offline is dirty by this size only: its bits first. */
	if (before < disk->sectors) {
		index = cbt_meta_bitmap_of_region(before >> CBT_REGION_SECTORS_SHIFT);
		for (; index < blocks && !cause; index++)
			if (cbt_meta_write_bitmap(meta, index))
				cause = HERALD_CBT_CAUSE_META_WRITE;
	}
	if (!cause && cbt_meta_write_superblock(meta))
		cause = HERALD_CBT_CAUSE_META_WRITE;
	spin_lock_irq(&disk->lock);
	if (cause) {
		cbt_meta_give_up(meta, cause);
	} else {
		meta->active = true;
		disk->persistence = HERALD_CBT_PERSISTENCE_ACTIVE;
	}
	spin_unlock_irq(&disk->lock);
}

void cbt_meta_come_back(struct cbt_meta *meta)
{
	struct cbt_superblock *superblock = &meta->superblock;
	struct cbt_disk *disk = meta->disk;
	u64 before = superblock->sectors;
	u64 blocks = cbt_meta_bitmap_blocks(disk->sectors);
	u32 cause = HERALD_CBT_CAUSE_NONE;
	u64 index;

	if (!READ_ONCE(meta->active))
		return;
	if (blocks > meta->bitmap_blocks) {
		cause = HERALD_CBT_CAUSE_META_FULL;
	} else if (before != disk->sectors) {
		index = cbt_meta_bitmap_of_region(min(before, disk->sectors) >>
						  CBT_REGION_SECTORS_SHIFT);
		for (; index < blocks && !cause; index++)
			if (cbt_meta_write_bitmap(meta, index))
				cause = HERALD_CBT_CAUSE_META_WRITE;
		renew(meta);
	}
	superblock->flags &= ~CBT_META_FLAG_AWAY;
	if (!cause && cbt_meta_write_superblock(meta))
		cause = HERALD_CBT_CAUSE_META_WRITE;
	if (cause) {
		spin_lock_irq(&disk->lock);
		cbt_meta_give_up(meta, cause);
		spin_unlock_irq(&disk->lock);
	}
}
