// SPDX-License-Identifier: GPL-2.0-only
#include "calls.h"

#include <linux/gfp.h>
#include <linux/kdev_t.h>
#include <linux/percpu.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "clearing.h"
#include "device.h"
#include "disk.h"
#include "group.h"
#include "meta.h"

/* Blocks marked with the lock held once: some ten microseconds. */
#define MARK_BLOCKS BIT(20)
/* Slots released likewise. */
#define RELEASE_SLOTS 4096u

static struct cbt_disk *find(struct herald_cbt_disk_abi id)
{
	return cbt_disk_find(id.major, id.minor);
}

static bool is_owner(struct cbt_file *file, struct cbt_disk *disk)
{
	return READ_ONCE(file->disk) == disk;
}

int cbt_call_info(struct cbt_file *file, void *argument)
{
	struct herald_cbt_info_abi *info = argument;
	struct cbt_disk *disk;

	if (info->flags || info->version || info->disks || info->features || info->time_ns ||
	    info->memory_bytes || info->memory_bytes_max)
		return -EINVAL;
	info->version = HERALD_CBT_ABI_VERSION;
	info->features =
		HERALD_CBT_FEATURE_BOUNCE | HERALD_CBT_FEATURE_META | HERALD_CBT_FEATURE_PAYLOAD;
	info->time_ns = cbt_now();
	info->memory_bytes = cbt_memory_used();
	info->memory_bytes_max = cbt_memory_max();
	mutex_lock(&cbt_disks_mutex);
	list_for_each_entry(disk, &cbt_disks, all)
		info->disks++;
	mutex_unlock(&cbt_disks_mutex);
	return 0;
}

static void fill_row(struct cbt_disk *disk, struct herald_cbt_row_abi *row)
{
	memset(row, 0, sizeof(*row));
	row->disk.major = disk->major;
	row->disk.minor = disk->minor;
	row->origin.major = MAJOR(disk->origin_dev);
	row->origin.minor = MINOR(disk->origin_dev);
	row->meta.major = MAJOR(disk->meta_dev);
	row->meta.minor = MINOR(disk->meta_dev);
	spin_lock_irq(&disk->lock);
	row->sectors = disk->sectors;
	row->mode = disk->mode.mode;
	row->mode_cause = disk->mode.cause;
	row->owned = !!disk->owner;
	row->suspended = !disk->target;
	row->gap = disk->gap;
	row->persistence = disk->persistence;
	memcpy(row->tracking, disk->tracking, sizeof(row->tracking));
	spin_unlock_irq(&disk->lock);
}

int cbt_call_list(struct cbt_file *file, void *argument)
{
	struct herald_cbt_list_abi *list = argument;
	struct herald_cbt_row_abi __user *rows = u64_to_user_ptr(list->rows);
	struct herald_cbt_row_abi *made;
	struct cbt_disk *disk;
	u32 count = 0;
	int error = 0;

	if (list->flags || list->count || list->capacity > HERALD_CBT_DISKS_MAX)
		return -EINVAL;
	made = kvcalloc(HERALD_CBT_DISKS_MAX, sizeof(*made), GFP_KERNEL);
	if (!made)
		return -ENOMEM;
	mutex_lock(&cbt_disks_mutex);
	list_for_each_entry(disk, &cbt_disks, all) {
		if (count < HERALD_CBT_DISKS_MAX)
			fill_row(disk, &made[count]);
		count++;
	}
	mutex_unlock(&cbt_disks_mutex);
	/* Not under the mutex: user memory may be a mapping of a file on a disk that is held. */
	if (copy_to_user(rows, made, min(count, list->capacity) * sizeof(*made)))
		error = -EFAULT;
	kvfree(made);
	list->count = count;
	return error;
}

int cbt_call_own(struct cbt_file *file, void *argument)
{
	struct herald_cbt_own_abi *own = argument;
	struct cbt_disk *disk;
	int error = 0;

	if (own->flags || own->slots || own->payload_bytes || own->tail || own->head ||
	    own->stored || own->sectors)
		return -EINVAL;
	disk = find(own->disk);
	if (!disk)
		return -ENODEV;
	mutex_lock(&file->mutex);
	spin_lock_irq(&disk->lock);
	if (disk->gone) {
		error = -ENODEV;
	} else if (disk->owner || file->disk) {
		error = -EBUSY;
	} else {
		disk->owner = file;
		/* With the reference that find() took. */
		WRITE_ONCE(file->disk, disk);
		disk->drained = disk->ring.tail;
		disk->events_seen = disk->events;
		cbt_generations_owner(&disk->generations, disk->ring.tail);
		cbt_disk_climb(disk);
		cbt_disk_event(disk);
		own->slots = disk->ring.slot_count;
		own->payload_bytes = disk->ring.payload_bytes;
		own->tail = disk->ring.tail;
		own->head = disk->ring.head;
		own->stored = disk->generations.stored;
		own->sectors = disk->sectors;
	}
	spin_unlock_irq(&disk->lock);
	mutex_unlock(&file->mutex);
	if (error)
		cbt_disk_put(disk);
	else
		queue_delayed_work(cbt_slow_wq, &disk->clear_work, 0);
	return error;
}

void cbt_disown(struct cbt_file *file)
{
	struct cbt_disk *disk = file->disk;

	if (!disk)
		return;
	spin_lock_irq(&disk->lock);
	disk->owner = NULL;
	cbt_disk_event(disk);
	spin_unlock_irq(&disk->lock);
	cbt_disk_put(disk);
}

int cbt_call_release(struct cbt_file *file, void *argument)
{
	struct herald_cbt_release_abi *release = argument;
	struct cbt_disk *disk = file->disk;
	bool more;
	int error = 0;

	if (release->flags || release->reserved)
		return -EINVAL;
	do {
		u64 to;

		spin_lock_irq(&disk->lock);
		/* Some at a time: every slot is looked at, with interrupts off. */
		to = min(release->released, disk->ring.tail + RELEASE_SLOTS);
		more = to < release->released;
		cbt_disk_high_water(disk);
		if (disk->gone) {
			error = -ENODEV;
		} else if (release->drained < release->released ||
			   release->drained > disk->ring.head ||
			   !cbt_ring_release(&disk->ring, to, cbt_disk_pin(disk))) {
			error = -ERANGE;
		} else if (!more) {
			disk->drained = release->drained;
			disk->events_seen = release->events;
			cbt_disk_climb(disk);
		}
		spin_unlock_irq(&disk->lock);
	} while (more && !error);
	return error;
}

int cbt_call_ack(struct cbt_file *file, void *argument)
{
	struct herald_cbt_ack_abi *ack = argument;
	struct cbt_disk *disk = file->disk;
	bool close_gap = ack->flags & HERALD_CBT_ACK_GAP_CLOSED;
	bool clear = false;
	int error = 0;

	if (ack->flags & ~(HERALD_CBT_ACK_GAP_CLOSED | HERALD_CBT_ACK_SCANNED) ||
	    ack->sealed_generation || ack->sealed_slot || ack->sealed_flags || ack->current_flags ||
	    (!(ack->flags & HERALD_CBT_ACK_SCANNED) && ack->scanned))
		return -EINVAL;
	spin_lock_irq(&disk->lock);
	if (disk->gone) {
		error = -ENODEV;
	} else if ((ack->flags & HERALD_CBT_ACK_SCANNED) &&
		   (!ack->scanned || ack->scanned != disk->generations.sealed)) {
		error = -ESTALE;
	} else if (!cbt_generations_acknowledge(&disk->generations, ack->received, ack->stored,
						disk->ring.head)) {
		error = -ERANGE;
	} else {
		if (ack->flags & HERALD_CBT_ACK_SCANNED)
			cbt_generations_scanned(&disk->generations, ack->scanned);
		if (close_gap && disk->gap) {
			disk->gap = HERALD_CBT_CAUSE_NONE;
			cbt_disk_event(disk);
		}
		ack->sealed_generation = disk->generations.sealed;
		ack->sealed_slot = disk->generations.sealed_slot;
		ack->sealed_flags = disk->generations.sealed_flags;
		ack->current_flags = disk->generations.current_flags;
		clear = cbt_generations_may_flush(&disk->generations) || !disk->generations.sealed;
		cbt_disk_publish(disk);
	}
	spin_unlock_irq(&disk->lock);
	if (clear)
		queue_delayed_work(cbt_slow_wq, &disk->clear_work, 0);
	/* Durable before the call returns: a gap that the reader calls closed does not come back.
	 */
	if (!error && close_gap)
		error = cbt_meta_gap_closed(disk);
	return error;
}

int cbt_call_seal(struct cbt_file *file, void *argument)
{
	struct herald_cbt_seal_abi *seal = argument;
	struct cbt_disk *disk;
	int error = 0;

	if (seal->flags || seal->sealed_generation || seal->sealed_slot || seal->sealed_flags ||
	    seal->reserved)
		return -EINVAL;
	disk = find(seal->disk);
	if (!disk)
		return -ENODEV;
	spin_lock_irq(&disk->lock);
	if (!cbt_seal(disk))
		error = -EAGAIN;
	seal->sealed_generation = disk->generations.sealed;
	seal->sealed_slot = disk->generations.sealed_slot;
	seal->sealed_flags = disk->generations.sealed_flags;
	spin_unlock_irq(&disk->lock);
	cbt_disk_put(disk);
	return error;
}

/* Words [first, first + count) into `to`, in the byte order of the call. Under disk->lock. */
static u64 copy_words(struct cbt_disk *disk, u32 which, u64 first, u64 count, __le64 *to)
{
	const u64 *current_words = cbt_current_map(disk)->words;
	const u64 *sealed_words = cbt_sealed_map(disk)->words;
	u64 word;

	for (word = 0; word < count; word++) {
		u64 bits = 0;

		if (which & HERALD_CBT_BITMAP_CURRENT)
			bits |= current_words[first + word];
		if (which & HERALD_CBT_BITMAP_SEALED)
			bits |= READ_ONCE(sealed_words[first + word]);
		to[word] = cpu_to_le64(bits);
	}
	return which == HERALD_CBT_BITMAP_SEALED ? disk->generations.sealed
						 : disk->generations.current_number;
}

/* Set bits of the whole map. */
static u64 count_dirty(struct cbt_disk *disk, u32 which, __le64 *page)
{
	u64 count = 0;
	u64 word = 0;
	u64 some;

	do {
		u64 index;
		u64 words;

		spin_lock_irq(&disk->lock);
		words = cbt_bitmap_words(cbt_blocks_of_sectors(disk->sectors));
		some = word < words ? min_t(u64, words - word, PAGE_SIZE / 8) : 0;
		copy_words(disk, which, word, some, page);
		spin_unlock_irq(&disk->lock);
		for (index = 0; index < some; index++)
			count += hweight64(le64_to_cpu(page[index]));
		word += some;
		cond_resched();
	} while (some);
	return count;
}

int cbt_call_map(struct cbt_file *file, void *argument)
{
	struct herald_cbt_map_abi *map = argument;
	u8 __user *buffer = u64_to_user_ptr(map->buffer);
	struct cbt_disk *disk;
	u64 generation;
	u64 blocks;
	u64 done = 0;
	__le64 *page;
	int error = 0;

	if (map->flags || map->reserved || map->generation || map->dirty_blocks ||
	    map->which < HERALD_CBT_BITMAP_CURRENT || map->which > HERALD_CBT_BITMAP_BOTH ||
	    map->first_block % 64 || map->blocks > 8ull * HERALD_CBT_MAP_BYTES_MAX)
		return -EINVAL;
	disk = find(map->disk);
	if (!disk)
		return -ENODEV;
	page = (__le64 *)__get_free_page(GFP_KERNEL);
	if (!page) {
		error = -ENOMEM;
		goto out;
	}
	spin_lock_irq(&disk->lock);
	blocks = cbt_blocks_of_sectors(disk->sectors);
	generation = copy_words(disk, map->which, 0, 0, page);
	spin_unlock_irq(&disk->lock);
	if (map->first_block > blocks) {
		error = -ERANGE;
		goto out;
	}
	blocks = min(map->blocks, blocks - map->first_block);
	while (done < blocks) {
		u64 some = min_t(u64, blocks - done, PAGE_SIZE * 8);
		u64 now;

		/*
		 * Together: a bit that moves from one generation to the other is seen in one of
		 * them.
		 */
		spin_lock_irq(&disk->lock);
		if (map->first_block + done + some > disk->maps[0].blocks)
			error = -EAGAIN;
		else
			now = copy_words(disk, map->which, (map->first_block + done) / 64,
					 (some + 63) / 64, page);
		spin_unlock_irq(&disk->lock);
		if (!error && map->which != HERALD_CBT_BITMAP_BOTH && now != generation)
			error = -EAGAIN;
		/* Words hold the bits of blocks that were not asked for, too. */
		if (!error && some % 8)
			((u8 *)page)[some / 8] &= BIT(some % 8) - 1;
		if (!error && copy_to_user(buffer + done / 8, page, (some + 7) / 8))
			error = -EFAULT;
		if (error)
			goto out;
		done += some;
		cond_resched();
	}
	map->blocks = done;
	map->generation = generation;
	if (!map->first_block)
		map->dirty_blocks = count_dirty(disk, map->which, page);
out:
	free_page((unsigned long)page);
	cbt_disk_put(disk);
	return error;
}

int cbt_call_mark(struct cbt_file *file, void *argument)
{
	struct herald_cbt_mark_abi *mark = argument;
	struct cbt_disk *disk;
	u64 sector = mark->sector;
	u64 left = mark->sectors;
	u64 sectors;
	int error = 0;

	if (mark->flags || !mark->sectors)
		return -EINVAL;
	disk = find(mark->disk);
	if (!disk)
		return -ENODEV;
	/* Once: the disk may shrink between two looks, and the difference be less than nothing. */
	sectors = READ_ONCE(disk->sectors);
	if (sector >= sectors || left > sectors - sector) {
		error = -ERANGE;
		goto out;
	}
	/* Durable where the map is: this may be all that anyone knows of the range. */
	while (left) {
		u64 some = min_t(u64, left, (u64)MARK_BLOCKS << HERALD_CBT_BLOCK_SECTORS_SHIFT);

		spin_lock_irq(&disk->lock);
		cbt_disk_mark(disk, sector, some);
		spin_unlock_irq(&disk->lock);
		sector += some;
		left -= some;
		cond_resched();
	}
	error = cbt_meta_marked(disk, mark->sector, mark->sectors);
	spin_lock_irq(&disk->lock);
	cbt_disk_event(disk);
	spin_unlock_irq(&disk->lock);
	queue_delayed_work(cbt_slow_wq, &disk->clear_work, 0);
out:
	cbt_disk_put(disk);
	return error;
}

int cbt_call_cookie(struct cbt_file *file, void *argument)
{
	struct herald_cbt_cookie_abi *cookie = argument;
	void __user *buffer = u64_to_user_ptr(cookie->buffer);
	bool write = cookie->flags & HERALD_CBT_COOKIE_WRITE;
	struct cbt_disk *disk;
	u32 bytes = 0;
	u8 *data;
	int error;

	if (cookie->flags & ~HERALD_CBT_COOKIE_WRITE || cookie->reserved ||
	    cookie->bytes > HERALD_CBT_COOKIE_BYTES_MAX)
		return -EINVAL;
	disk = find(cookie->disk);
	if (!disk)
		return -ENODEV;
	data = kzalloc(HERALD_CBT_COOKIE_BYTES_MAX, GFP_KERNEL);
	if (!data) {
		error = -ENOMEM;
	} else if (write && !is_owner(file, disk)) {
		error = -EPERM;
	} else if (write) {
		error = copy_from_user(data, buffer, cookie->bytes) ? -EFAULT : 0;
		if (!error)
			error = cbt_meta_cookie_write(disk, data, cookie->bytes);
	} else {
		error = cbt_meta_cookie_read(disk, data, &bytes);
		if (!error && bytes > cookie->bytes)
			error = -EMSGSIZE;
		if (!error && copy_to_user(buffer, data, bytes))
			error = -EFAULT;
		cookie->bytes = bytes;
	}
	kfree(data);
	cbt_disk_put(disk);
	return error;
}

static void add_passed(struct cbt_disk *disk, struct herald_cbt_stats_abi *stats)
{
	int cpu;

	for_each_possible_cpu(cpu) {
		const struct cbt_passed *passed = per_cpu_ptr(disk->passed, cpu);

		stats->reads += READ_ONCE(passed->reads);
		stats->flushes += READ_ONCE(passed->flushes);
	}
}

int cbt_call_stats(struct cbt_file *file, void *argument)
{
	struct herald_cbt_stats_abi *stats = argument;
	struct herald_cbt_disk_abi id = stats->disk;
	struct cbt_disk *disk;
	u64 now;

	if (stats->flags ||
	    memchr_inv(&stats->writes, 0, sizeof(*stats) - offsetof(typeof(*stats), writes)))
		return -EINVAL;
	disk = find(id);
	if (!disk)
		return -ENODEV;
	add_passed(disk, stats);
	cbt_meta_stats(disk, stats);
	spin_lock_irq(&disk->lock);
	now = cbt_now();
	stats->writes = disk->counts.writes;
	stats->written_bytes = disk->counts.written_bytes;
	stats->ranges = disk->counts.ranges;
	stats->parked_overlap = disk->counts.parked_overlap;
	stats->parked_hold = disk->counts.parked_hold;
	stats->parked_activity = disk->counts.parked_activity;
	stats->again = disk->counts.again;
	stats->aborted = disk->counts.aborted;
	stats->unresolved = disk->counts.unresolved;
	memcpy(stats->mode_ns, disk->mode.spent_ns, sizeof(stats->mode_ns));
	if (now > disk->mode.since_ns)
		stats->mode_ns[disk->mode.mode - 1] += now - disk->mode.since_ns;
	memcpy(stats->sank, disk->mode.sank, sizeof(stats->sank));
	memcpy(stats->causes, disk->counts.causes, sizeof(stats->causes));
	cbt_disk_high_water(disk);
	stats->slots_used = disk->ring.head - disk->ring.tail;
	stats->slots_used_max = disk->counts.slots_used_max;
	stats->payload_used = disk->ring.payload_head - disk->ring.payload_tail;
	stats->payload_used_max = disk->counts.payload_used_max;
	/* Slots that are released and not stored are gone: then the oldest that is left. */
	if (disk->generations.stored < disk->ring.head && disk->ring.slot_count &&
	    disk->ring.tail < disk->ring.head) {
		u64 oldest = max(disk->generations.stored, disk->ring.tail);
		u64 time_ns = cbt_ring_slot(&disk->ring, oldest)->time_ns;

		stats->oldest_unstored_ns = now > time_ns ? now - time_ns : 0;
	}
	stats->in_flight = disk->counts.in_flight;
	stats->held_ns_max = disk->counts.held_ns_max;
	stats->tags = disk->counts.tags;
	memcpy(stats->capture, disk->counts.capture, sizeof(stats->capture));
	spin_unlock_irq(&disk->lock);
	cbt_disk_put(disk);
	return 0;
}

int cbt_call_detach(struct cbt_file *file, void *argument)
{
	struct herald_cbt_detach_abi *detach = argument;
	struct cbt_disk *disk;

	if (detach->flags & ~HERALD_CBT_DETACH_UNDO)
		return -EINVAL;
	disk = find(detach->disk);
	if (!disk)
		return -ENODEV;
	spin_lock_irq(&disk->lock);
	disk->detaching = !(detach->flags & HERALD_CBT_DETACH_UNDO);
	spin_unlock_irq(&disk->lock);
	cbt_disk_put(disk);
	return 0;
}
