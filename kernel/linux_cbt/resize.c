// SPDX-License-Identifier: GPL-2.0-only
#include "resize.h"

#include <linux/slab.h>
#include <linux/string.h>

int cbt_resize_prepare(struct cbt_target *target)
{
	u64 blocks = cbt_blocks_of_sectors(target->ti->len);
	u64 bytes = cbt_bitmap_words(blocks) * sizeof(u64);
	unsigned int index;

	if (blocks <= READ_ONCE(target->disk->maps[0].blocks))
		return 0;
	/* Over the module's cap if need be: the alternative is a disk that cannot grow. */
	for (index = 0; index < 2; index++) {
		target->grown_words[index] = kvzalloc(bytes, GFP_KERNEL);
		if (!target->grown_words[index])
			return -ENOMEM;
	}
	target->grown_blocks = blocks;
	return 0;
}

static void grow(struct cbt_target *target)
{
	struct cbt_disk *disk = target->disk;
	unsigned int index;

	for (index = 0; index < 2; index++) {
		struct cbt_bitmap *map = &disk->maps[index];
		u64 *old = map->words;

		memcpy(target->grown_words[index], old,
		       cbt_bitmap_words(map->blocks) * sizeof(u64));
		/* An empty map says so by its bounds. */
		if (cbt_bitmap_is_empty(map))
			map->low = cbt_bitmap_words(target->grown_blocks);
		map->words = target->grown_words[index];
		map->blocks = target->grown_blocks;
		/* The old words go with this table. */
		target->grown_words[index] = old;
	}
}

void cbt_resize_apply(struct cbt_target *target)
{
	struct cbt_disk *disk = target->disk;
	u64 before = disk->sectors;
	u64 after = target->ti->len;
	struct cbt_change change = {
		.sector = after,
		.argument = before,
		.state = HERALD_CBT_COMMITTED,
		.kind = HERALD_CBT_RESIZE,
	};
	u64 number;

	if (before == after)
		return;
	spin_lock_irq(&disk->lock);
	if (target->grown_blocks > disk->maps[0].blocks)
		grow(target);
	disk->sectors = after;
	if (after < before) {
		cbt_bitmap_clip(&disk->maps[0], cbt_blocks_of_sectors(after));
		cbt_bitmap_clip(&disk->maps[1], cbt_blocks_of_sectors(after));
	} else {
		cbt_disk_mark(disk, before, after - before);
	}
	/* In mode map no slot is written; the header says the size, and the event that it changed.
	 */
	if (disk->mode.mode == HERALD_CBT_MODE_MAP || !cbt_disk_push(disk, &change, &number))
		cbt_disk_sink(disk, HERALD_CBT_MODE_MAP, HERALD_CBT_CAUSE_SLOTS_FULL, cbt_now());
	cbt_disk_event(disk);
	spin_unlock_irq(&disk->lock);
}
