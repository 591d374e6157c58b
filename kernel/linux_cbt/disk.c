// SPDX-License-Identifier: GPL-2.0-only
#include "disk.h"

#include <linux/blkdev.h>
#include <linux/kdev_t.h>
#include <linux/percpu.h>
#include <linux/random.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "clearing.h"
#include "device.h"
#include "group.h"
#include "meta.h"
#include "resolve.h"
#include "trace.h"
#include "write.h"

static void wake_work(struct work_struct *work)
{
	struct cbt_disk *disk = container_of(to_delayed_work(work), struct cbt_disk, wake_work);

	spin_lock_irq(&disk->lock);
	disk->wake_armed = false;
	cbt_disk_publish(disk);
	spin_unlock_irq(&disk->lock);
	wake_up_interruptible(&disk->wait);
}

struct cbt_disk *cbt_disk_find(u32 major, u32 minor)
{
	struct cbt_disk *disk;

	mutex_lock(&cbt_disks_mutex);
	list_for_each_entry(disk, &cbt_disks, all) {
		if (disk->major == major && disk->minor == minor) {
			kref_get(&disk->references);
			mutex_unlock(&cbt_disks_mutex);
			return disk;
		}
	}
	mutex_unlock(&cbt_disks_mutex);
	return NULL;
}

static void release(struct kref *references)
{
	struct cbt_disk *disk = container_of(references, struct cbt_disk, references);

	cancel_delayed_work_sync(&disk->hold_work);
	cancel_delayed_work_sync(&disk->resolve_work);
	cancel_delayed_work_sync(&disk->wake_work);
	cancel_delayed_work_sync(&disk->clear_work);
	cancel_work_sync(&disk->ready_work);
	cbt_meta_free(disk);
	cbt_payload_free(&disk->payload);
	vfree(disk->slots);
	vfree(disk->header);
	kvfree(disk->maps[0].words);
	kvfree(disk->maps[1].words);
	free_percpu(disk->passed);
	cbt_memory_give(disk->memory_bytes);
	kfree(disk);
}

void cbt_disk_put(struct cbt_disk *disk)
{
	kref_put(&disk->references, release);
}

/* As large as asked for, or as memory and the cap allow; without any the disk has its map only. */
static void make_rings(struct cbt_disk *disk)
{
	u64 slots = disk->options.slots;
	u64 bytes = disk->options.payload_bytes;

	for (; slots >= HERALD_CBT_SLOTS_MIN; slots /= 2, bytes /= 2) {
		u64 needs = slots * sizeof(*disk->slots) + bytes;

		if (bytes && bytes < HERALD_CBT_PAYLOAD_BYTES_MIN)
			break;
		if (!cbt_memory_take(needs))
			continue;
		disk->slots = vmalloc_user(slots * sizeof(*disk->slots));
		if (disk->slots && (!bytes || !cbt_payload_allocate(&disk->payload, bytes))) {
			disk->memory_bytes += needs;
			cbt_ring_init(&disk->ring, disk->header, disk->slots, slots, bytes);
			disk->wake_mask = min_t(u64, HERALD_CBT_WAKE_SLOTS, slots / 2) - 1;
			return;
		}
		vfree(disk->slots);
		disk->slots = NULL;
		cbt_memory_give(needs);
	}
	cbt_ring_init(&disk->ring, disk->header, NULL, 0, 0);
}

static int make_map(struct cbt_disk *disk, struct cbt_bitmap *map)
{
	u64 blocks = cbt_blocks_of_sectors(disk->sectors);
	u64 bytes = cbt_bitmap_words(blocks) * sizeof(u64);
	u64 *words;

	if (!cbt_memory_take(bytes))
		return -ENOMEM;
	words = kvzalloc(bytes, GFP_KERNEL);
	if (!words) {
		cbt_memory_give(bytes);
		return -ENOMEM;
	}
	disk->memory_bytes += bytes;
	cbt_bitmap_init(map, words, blocks);
	return 0;
}

static struct cbt_disk *create(struct cbt_target *target, struct mapped_device *md)
{
	struct request_queue *queue = bdev_get_queue(target->origin->bdev);
	struct cbt_disk *disk = kzalloc(sizeof(*disk), GFP_KERNEL);
	int error = -ENOMEM;

	if (!disk)
		return ERR_PTR(error);
	kref_init(&disk->references);
	INIT_LIST_HEAD(&disk->all);
	disk->md = md;
	disk->major = MAJOR(disk_devt(dm_disk(md)));
	disk->minor = MINOR(disk_devt(dm_disk(md)));
	disk->origin_dev = target->origin->bdev->bd_dev;
	disk->meta_dev = target->meta ? target->meta->bdev->bd_dev : 0;
	disk->options = target->options;
	disk->sectors = target->ti->len;
	disk->alignment = max3(512u, (u32)queue_logical_block_size(queue),
			       (u32)queue_dma_alignment(queue) + 1);
	disk->alignment = min_t(u32, roundup_pow_of_two(disk->alignment), PAGE_SIZE);
	mutex_init(&disk->target_mutex);
	spin_lock_init(&disk->lock);
	disk->overlaps.tree = RB_ROOT_CACHED;
	INIT_LIST_HEAD(&disk->ready);
	INIT_LIST_HEAD(&disk->held_writes);
	INIT_LIST_HEAD(&disk->hung);
	init_waitqueue_head(&disk->wait);
	INIT_WORK(&disk->ready_work, cbt_write_ready_work);
	INIT_DELAYED_WORK(&disk->wake_work, wake_work);
	INIT_DELAYED_WORK(&disk->clear_work, cbt_clear_work);
	INIT_DELAYED_WORK(&disk->resolve_work, cbt_resolve_work);
	INIT_DELAYED_WORK(&disk->hold_work, cbt_hold_work);
	cbt_generations_init(&disk->generations);
	get_random_bytes(disk->tracking, sizeof(disk->tracking));
	disk->activation = 1;
	disk->persistence = HERALD_CBT_PERSISTENCE_NONE;
	disk->gap = target->meta ? HERALD_CBT_CAUSE_NONE : HERALD_CBT_CAUSE_NO_META;

	disk->passed = alloc_percpu(struct cbt_passed);
	disk->header = vmalloc_user(PAGE_SIZE);
	if (!disk->passed || !disk->header)
		goto fail;
	error = make_map(disk, &disk->maps[0]);
	if (!error)
		error = make_map(disk, &disk->maps[1]);
	if (error)
		goto fail;
	make_rings(disk);
	cbt_mode_init(&disk->mode, HERALD_CBT_MODE_MAP,
		      disk->slots ? HERALD_CBT_CAUSE_ACTIVATED : HERALD_CBT_CAUSE_NO_MEMORY,
		      cbt_now());
	if (target->meta) {
		error = cbt_meta_create(disk, target);
		if (error)
			goto fail;
	}
	return disk;
fail:
	cbt_disk_put(disk);
	return ERR_PTR(error);
}

static bool are_equal(const struct cbt_options *one, const struct cbt_options *other)
{
	return one->slots == other->slots && one->payload_bytes == other->payload_bytes &&
	       one->unresolved_ms == other->unresolved_ms && one->bounce == other->bounce;
}

static bool shares_device(const struct cbt_disk *disk, dev_t device)
{
	return device && (disk->origin_dev == device || disk->meta_dev == device);
}

int cbt_disk_attach(struct cbt_target *target)
{
	struct mapped_device *md = dm_table_get_md(target->ti->table);
	dev_t meta_dev = target->meta ? target->meta->bdev->bd_dev : 0;
	unsigned int count = 0;
	struct cbt_disk *disk;

	lockdep_assert_held(&cbt_disks_mutex);
	list_for_each_entry(disk, &cbt_disks, all) {
		count++;
		if (disk->md != md) {
			/* dm opens a device for any number of tables. */
			if (shares_device(disk, target->origin->bdev->bd_dev) ||
			    shares_device(disk, meta_dev)) {
				target->ti->error = "Origin or meta device of another tracked disk";
				return -EBUSY;
			}
			continue;
		}
		if (disk->gone) {
			target->ti->error = "The last table is still being taken out; try again";
			return -EBUSY;
		}
		/* What is known is known of this disk, and laid out by these options. */
		if (disk->origin_dev != target->origin->bdev->bd_dev ||
		    disk->meta_dev != meta_dev || !are_equal(&disk->options, &target->options)) {
			target->ti->error = "Origin, meta device and options must not change";
			return -EBUSY;
		}
		kref_get(&disk->references);
		disk->targets++;
		target->disk = disk;
		return 0;
	}
	if (count >= HERALD_CBT_DISKS_MAX) {
		target->ti->error = "Too many tracked disks";
		return -ENOSPC;
	}
	disk = create(target, md);
	if (IS_ERR(disk)) {
		target->ti->error = "No memory for the dirty map, or over memory_mib_max";
		return PTR_ERR(disk);
	}
	disk->targets = 1;
	list_add_tail(&disk->all, &cbt_disks);
	target->disk = disk;
	return 0;
}

static void set_gone(struct cbt_disk *disk)
{
	spin_lock_irq(&disk->lock);
	disk->gone = true;
	cbt_disk_event(disk);
	spin_unlock_irq(&disk->lock);
}

void cbt_disk_leave(struct cbt_target *target)
{
	struct cbt_disk *disk = target->disk;

	mutex_lock(&disk->target_mutex);
	if (disk->last_used == target)
		set_gone(disk);
	mutex_unlock(&disk->target_mutex);
}

void cbt_disk_detach(struct cbt_target *target)
{
	struct cbt_disk *disk = target->disk;

	lockdep_assert_held(&cbt_disks_mutex);
	if (--disk->targets == 0) {
		list_del_init(&disk->all);
		set_gone(disk);
	}
	target->disk = NULL;
	cbt_disk_put(disk);
}

void cbt_disk_publish(struct cbt_disk *disk)
{
	struct herald_cbt_header_abi *header = disk->header;
	const struct cbt_generations *generations = &disk->generations;

	cbt_store(&header->features,
		  (disk->options.bounce ? HERALD_CBT_FEATURE_BOUNCE : 0) |
			  (disk->meta ? HERALD_CBT_FEATURE_META : 0) |
			  (disk->ring.payload_bytes ? HERALD_CBT_FEATURE_PAYLOAD : 0));
	cbt_store(&header->activation, disk->activation);
	memcpy(header->tracking, disk->tracking, sizeof(header->tracking));
	cbt_store(&header->sectors, disk->sectors);
	cbt_store(&header->mode, disk->mode.mode);
	cbt_store(&header->mode_cause, disk->mode.cause);
	cbt_store(&header->mode_since_ns, disk->mode.since_ns);
	cbt_store(&header->held, !!disk->held_by);
	cbt_store(&header->sealed_generation, generations->sealed);
	cbt_store(&header->sealed_slot, generations->sealed_slot);
	cbt_store(&header->sealed_flags, generations->sealed_flags);
	cbt_store(&header->current_flags, generations->current_flags);
	cbt_store(&header->current_generation, generations->current_number);
	cbt_store(&header->received, generations->received);
	cbt_store(&header->stored, generations->stored);
	cbt_store(&header->gap, disk->gap);
	cbt_store(&header->persistence, disk->persistence);
	cbt_store(&header->persistence_cause, disk->persistence_cause);
	cbt_store(&header->writes, disk->counts.writes);
	cbt_store(&header->written_bytes, disk->counts.written_bytes);
	cbt_store(&header->sank_to_extents, disk->mode.sank[HERALD_CBT_MODE_EXTENTS - 1]);
	cbt_store(&header->sank_to_map, disk->mode.sank[HERALD_CBT_MODE_MAP - 1]);
	cbt_store(&header->climbed, disk->mode.climbed);
	cbt_store(&header->aborted, disk->counts.aborted);
	cbt_store(&header->unresolved, disk->counts.unresolved);
	/* Last, and released: who sees this number sees what changed. */
	cbt_store_release(&header->events, disk->events);
}

void cbt_disk_event(struct cbt_disk *disk)
{
	disk->events++;
	cbt_disk_publish(disk);
	wake_up_interruptible(&disk->wait);
}

void cbt_disk_wake_soon(struct cbt_disk *disk)
{
	disk->wake_armed = true;
	queue_delayed_work(cbt_fast_wq, &disk->wake_work, msecs_to_jiffies(HERALD_CBT_WAKE_MS));
}

void cbt_disk_sink(struct cbt_disk *disk, u32 mode, u32 cause, u64 now)
{
	u32 before = disk->mode.mode;

	if (!cbt_mode_sink(&disk->mode, mode, cause, now))
		return;
	disk->counts.causes[cause]++;
	cbt_store(&disk->header->latch_slot, disk->ring.head);
	trace_cbt_mode(disk->major, disk->minor, before, mode, cause);
	cbt_disk_event(disk);
}

void cbt_disk_climb(struct cbt_disk *disk)
{
	u32 to = cbt_mode_reachable(&disk->mode, &disk->ring);
	struct cbt_change change = {
		.sectors = disk->mode.mode,
		.argument = to,
		.state = HERALD_CBT_COMMITTED,
		.kind = HERALD_CBT_MODE,
	};
	u64 now;

	if (to == disk->mode.mode || !disk->owner)
		return;
	now = cbt_now();
	/* Its own slot first: what follows it is in order again. */
	cbt_ring_push(&disk->ring, &change, 0, now);
	trace_cbt_mode(disk->major, disk->minor, disk->mode.mode, to, HERALD_CBT_CAUSE_CLIMBED);
	cbt_mode_climb(&disk->mode, to, now);
	disk->counts.causes[HERALD_CBT_CAUSE_CLIMBED]++;
	cbt_disk_event(disk);
	if (cbt_generations_may_seal(&disk->generations, disk->mode.mode, disk->unslotted))
		queue_delayed_work(cbt_slow_wq, &disk->clear_work, 0);
}

void cbt_disk_mark(struct cbt_disk *disk, u64 sector, u64 sectors)
{
	cbt_bitmap_set_sectors(cbt_current_map(disk), sector, sectors);
	cbt_generations_need_scan(&disk->generations);
}

void cbt_disk_high_water(struct cbt_disk *disk)
{
	const struct cbt_ring *ring = &disk->ring;
	struct cbt_counts *counts = &disk->counts;

	counts->slots_used_max = max(counts->slots_used_max, ring->head - ring->tail);
	counts->payload_used_max =
		max(counts->payload_used_max, ring->payload_head - ring->payload_tail);
}

u64 cbt_disk_pin(struct cbt_disk *disk)
{
	u64 pin = CBT_NO_PIN;
	struct cbt_write *write;

	list_for_each_entry(write, &disk->hung, hung_entry)
		if (write->payload_bytes)
			pin = min(pin, write->payload);
	return pin;
}

bool cbt_disk_push(struct cbt_disk *disk, const struct cbt_change *change, u64 *number)
{
	if (!disk->ring.slot_count || !cbt_ring_slots_free(&disk->ring))
		return false;
	*number = cbt_ring_push(&disk->ring, change, 0, cbt_now());
	return true;
}
