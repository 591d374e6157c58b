// SPDX-License-Identifier: GPL-2.0-only
#include "target.h"

#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/device-mapper.h>
#include <linux/kernel.h>
#include <linux/log2.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "compat.h"
#include "disk.h"
#include "group.h"
#include "meta.h"
#include "names.h"
#include "resize.h"
#include "write.h"

#define OPTIONS_MAX 8

static int parse_number(struct dm_target *ti, const char *text, u64 low, u64 high, u64 *value)
{
	if (!text || kstrtoull(text, 10, value) || *value < low || *value > high) {
		ti->error = "Option without its number, or out of range";
		return -EINVAL;
	}
	return 0;
}

static int parse_options(struct cbt_target *target, unsigned int argc, char **argv)
{
	struct dm_target *ti = target->ti;
	struct cbt_options *options = &target->options;
	unsigned int index;
	u64 value = 0;
	int error = 0;

	for (index = 0; index < argc && !error; index++) {
		const char *name = argv[index];
		const char *next = index + 1 < argc ? argv[index + 1] : NULL;

		if (!strcasecmp(name, "bounce")) {
			options->bounce = true;
		} else if (!strcasecmp(name, "nobounce")) {
			options->bounce = false;
		} else if (!strcasecmp(name, "slots")) {
			error = parse_number(ti, next, HERALD_CBT_SLOTS_MIN, HERALD_CBT_SLOTS_MAX,
					     &value);
			options->slots = value;
			index++;
		} else if (!strcasecmp(name, "payload_bytes")) {
			/* 0: mode extents at best. */
			if (next && !strcmp(next, "0"))
				value = 0;
			else
				error = parse_number(ti, next, HERALD_CBT_PAYLOAD_BYTES_MIN,
						     HERALD_CBT_PAYLOAD_BYTES_MAX, &value);
			options->payload_bytes = value;
			index++;
		} else if (!strcasecmp(name, "unresolved_ms")) {
			error = parse_number(ti, next, 10, 3600000, &value);
			options->unresolved_ms = value;
			index++;
		} else {
			ti->error = "Unknown option";
			error = -EINVAL;
		}
	}
	if (!error && (!is_power_of_2(options->slots) ||
		       (options->payload_bytes && !is_power_of_2(options->payload_bytes)))) {
		ti->error = "slots and payload_bytes must be powers of two";
		error = -EINVAL;
	}
	return error;
}

static void free_target(struct cbt_target *target)
{
	kvfree(target->grown_words[0]);
	kvfree(target->grown_words[1]);
	if (target->meta)
		dm_put_device(target->ti, target->meta);
	if (target->origin)
		dm_put_device(target->ti, target->origin);
	kfree(target);
}

static int cbt_ctr(struct dm_target *ti, unsigned int argc, char **argv)
{
	static const struct dm_arg counts[] = {
		{ 0, OPTIONS_MAX, "Invalid number of options" },
	};
	struct cbt_target *target;
	struct dm_arg_set arguments;
	unsigned int count = 0;
	int error;

	if (argc < 2) {
		ti->error = "Expected: <origin> <meta|-> [<n> <options>]";
		return -EINVAL;
	}
	if (ti->begin != 0 || ti->len > HERALD_CBT_DISK_SECTORS_MAX) {
		ti->error = "Must be the whole device, of at most 64 TiB";
		return -EINVAL;
	}
	target = kzalloc(sizeof(*target), GFP_KERNEL);
	if (!target) {
		ti->error = "No memory";
		return -ENOMEM;
	}
	target->ti = ti;
	target->options.slots = HERALD_CBT_SLOTS_DEFAULT;
	target->options.payload_bytes = HERALD_CBT_PAYLOAD_BYTES_DEFAULT;
	target->options.unresolved_ms = HERALD_CBT_UNRESOLVED_MS_DEFAULT;
	target->options.bounce = true;

	arguments.argc = argc - 2;
	arguments.argv = argv + 2;
	if (arguments.argc) {
		error = dm_read_arg_group(counts, &arguments, &count, &ti->error);
		if (!error && arguments.argc != count) {
			ti->error = "Not as many options as announced";
			error = -EINVAL;
		}
		if (!error)
			error = parse_options(target, count, arguments.argv);
		if (error)
			goto fail;
	}

	error = dm_get_device(ti, argv[0], dm_table_get_mode(ti->table), &target->origin);
	if (error) {
		ti->error = "Origin device not found";
		goto fail;
	}
	if (bdev_is_zoned(target->origin->bdev)) {
		ti->error = "Zoned devices are not tracked";
		error = -EOPNOTSUPP;
		goto fail;
	}
	if (strcmp(argv[1], "-")) {
		error = dm_get_device(ti, argv[1], dm_table_get_mode(ti->table), &target->meta);
		if (error) {
			ti->error = "Meta device not found";
			goto fail;
		}
		if (target->meta->bdev == target->origin->bdev) {
			ti->error = "Meta device and origin are the same";
			error = -EINVAL;
			goto fail;
		}
	}

	ti->num_flush_bios = 1;
	ti->num_discard_bios = 1;
	ti->num_secure_erase_bios = 1;
	ti->num_write_zeroes_bios = 1;
	ti->per_io_data_size = sizeof(struct cbt_write);
	ti->private = target;

	mutex_lock(&cbt_disks_mutex);
	error = cbt_disk_attach(target);
	mutex_unlock(&cbt_disks_mutex);
	if (error)
		goto fail;
	error = cbt_resize_prepare(target);
	if (error) {
		ti->error = "No memory for the dirty map of the larger disk";
		mutex_lock(&cbt_disks_mutex);
		cbt_disk_detach(target);
		mutex_unlock(&cbt_disks_mutex);
		goto fail;
	}
	return 0;
fail:
	free_target(target);
	return error;
}

static void cbt_dtr(struct dm_target *ti)
{
	struct cbt_target *target = ti->private;
	struct cbt_disk *disk = target->disk;

	/* A table that was never in use has nothing to say. */
	if (target->activated) {
		cbt_disk_leave(target);
		cbt_meta_stop(disk, target);
	}
	mutex_lock(&cbt_disks_mutex);
	cbt_disk_detach(target);
	mutex_unlock(&cbt_disks_mutex);
	free_target(target);
}

static int cbt_map(struct dm_target *ti, struct bio *bio)
{
	struct cbt_target *target = ti->private;
	struct cbt_disk *disk = target->disk;
	struct cbt_write *write = dm_per_bio_data(bio, sizeof(*write));
	u16 kind;

	/* dm does not zero this, and end_io looks at it for every bio. */
	write->tracked = false;
	bio_set_dev(bio, target->origin->bdev);
	if (likely(bio_op(bio) == REQ_OP_WRITE && bio_sectors(bio) &&
		   bio_sectors(bio) <= HERALD_CBT_WRITE_BYTES_MAX >> SECTOR_SHIFT))
		return cbt_write_begin(disk, write, bio, HERALD_CBT_WRITE);
	switch (bio_op(bio)) {
	case REQ_OP_READ:
		this_cpu_inc(disk->passed->reads);
		return DM_MAPIO_REMAPPED;
	case REQ_OP_FLUSH:
		this_cpu_inc(disk->passed->flushes);
		return DM_MAPIO_REMAPPED;
	case REQ_OP_WRITE:
		/* dm sends a flush as a write of nothing. */
		if (!bio_sectors(bio)) {
			this_cpu_inc(disk->passed->flushes);
			return DM_MAPIO_REMAPPED;
		}
		if (bio_sectors(bio) > HERALD_CBT_WRITE_BYTES_MAX >> SECTOR_SHIFT)
			dm_accept_partial_bio(bio, HERALD_CBT_WRITE_BYTES_MAX >> SECTOR_SHIFT);
		kind = HERALD_CBT_WRITE;
		break;
	case REQ_OP_WRITE_ZEROES:
		kind = HERALD_CBT_WRITE_ZEROES;
		break;
	case REQ_OP_DISCARD:
		kind = HERALD_CBT_DISCARD;
		break;
	case REQ_OP_SECURE_ERASE:
		kind = HERALD_CBT_SECURE_ERASE;
		break;
	default:
		/* What is not known may write what is not tracked. */
		return DM_MAPIO_KILL;
	}
	if (!bio_sectors(bio))
		return DM_MAPIO_REMAPPED;
	return cbt_write_begin(disk, write, bio, kind);
}

static int cbt_end_io(struct dm_target *ti, struct bio *bio, blk_status_t *error)
{
	struct cbt_write *write = dm_per_bio_data(bio, sizeof(*write));

	if (!write->tracked)
		return DM_ENDIO_DONE;
	if (unlikely(*error == BLK_STS_AGAIN && bio->bi_opf & REQ_NOWAIT)) {
		struct cbt_target *target = ti->private;

		cbt_write_again(write, target->origin->bdev);
		return DM_ENDIO_INCOMPLETE;
	}
	cbt_write_end(write, *error);
	return DM_ENDIO_DONE;
}

static void cbt_presuspend(struct dm_target *ti)
{
	struct cbt_target *target = ti->private;

	/* dm waits for all that is in flight, parked or not. */
	cbt_hold_end(target->disk, NULL, HERALD_CBT_CAUSE_SUSPENDED);
}

static void cbt_postsuspend(struct dm_target *ti)
{
	struct cbt_target *target = ti->private;
	struct cbt_disk *disk = target->disk;

	if (!target->activated)
		return;
	mutex_lock(&disk->target_mutex);
	cbt_meta_suspend(disk, target);
	spin_lock_irq(&disk->lock);
	if (disk->target == target)
		disk->target = NULL;
	spin_unlock_irq(&disk->lock);
	mutex_unlock(&disk->target_mutex);
}

/* The first slot of all, before the first write: from here on something is known. */
static void announce(struct cbt_disk *disk)
{
	struct cbt_change change = {
		.state = HERALD_CBT_COMMITTED,
		.kind = HERALD_CBT_ACTIVATION,
		.argument = disk->activation,
		.id = disk->tracking,
	};
	u64 number;

	disk->announced = true;
	spin_lock_irq(&disk->lock);
	cbt_disk_push(disk, &change, &number);
	spin_unlock_irq(&disk->lock);
}

static int cbt_preresume(struct dm_target *ti)
{
	struct cbt_target *target = ti->private;
	struct cbt_disk *disk = target->disk;

	mutex_lock(&disk->target_mutex);
	/* Another table was in use in between, and nobody saw its writes. */
	if (READ_ONCE(disk->gone)) {
		mutex_unlock(&disk->target_mutex);
		return -ESTALE;
	}
	disk->last_used = target;
	cbt_resize_apply(target);
	cbt_meta_resume(disk, target);
	target->activated = true;
	if (!disk->announced)
		announce(disk);
	spin_lock_irq(&disk->lock);
	disk->target = target;
	cbt_disk_event(disk);
	spin_unlock_irq(&disk->lock);
	mutex_unlock(&disk->target_mutex);
	/* What was acknowledged meanwhile. */
	queue_delayed_work(cbt_slow_wq, &disk->clear_work, 0);
	return 0;
}

static void cbt_status(struct dm_target *ti, status_type_t type, unsigned int status_flags,
		       char *result, unsigned int maxlen)
{
	struct cbt_target *target = ti->private;
	struct cbt_disk *disk = target->disk;
	unsigned int sz = 0;

	switch (type) {
	case STATUSTYPE_INFO:
		spin_lock_irq(&disk->lock);
		DMEMIT("%s %s slots %llu/%llu payload %llu/%llu gen %llu/%llu",
		       cbt_mode_name(disk->mode.mode), cbt_cause_name(disk->mode.cause),
		       disk->ring.head - disk->ring.tail, disk->ring.slot_count,
		       disk->ring.payload_head - disk->ring.payload_tail, disk->ring.payload_bytes,
		       disk->generations.sealed, disk->generations.current_number);
		DMEMIT(" persistence %s %s gap %s", cbt_persistence_name(disk->persistence),
		       cbt_cause_name(disk->persistence_cause), cbt_cause_name(disk->gap));
		DMEMIT(" sank %llu/%llu climbed %llu writes %llu aborted %llu unresolved %llu",
		       disk->mode.sank[HERALD_CBT_MODE_EXTENTS - 1],
		       disk->mode.sank[HERALD_CBT_MODE_MAP - 1], disk->mode.climbed,
		       disk->counts.writes, disk->counts.aborted, disk->counts.unresolved);
		DMEMIT("%s%s%s", disk->options.bounce ? "" : " not-exact-under-O_DIRECT",
		       disk->owner ? " owned" : "", disk->held_by ? " held" : "");
		spin_unlock_irq(&disk->lock);
		break;
	case STATUSTYPE_TABLE:
		DMEMIT("%s %s 7 slots %llu payload_bytes %llu unresolved_ms %u %s",
		       target->origin->name, target->meta ? target->meta->name : "-",
		       target->options.slots, target->options.payload_bytes,
		       target->options.unresolved_ms,
		       target->options.bounce ? "bounce" : "nobounce");
		break;
#ifdef CBT_HAVE_STATUS_IMA
	case STATUSTYPE_IMA:
		DMEMIT_TARGET_NAME_VERSION(ti->type);
		DMEMIT(",origin=%s,meta=%s;", target->origin->name,
		       target->meta ? target->meta->name : "-");
		break;
#endif
	}
}

static int cbt_iterate_devices(struct dm_target *ti, iterate_devices_callout_fn fn, void *data)
{
	struct cbt_target *target = ti->private;

	return fn(ti, target->origin, 0, ti->len, data);
}

static unsigned int lower(unsigned int limit)
{
	return min_t(unsigned int, limit, HERALD_CBT_RANGE_SECTORS_MAX);
}

/* One discard must not make more regions hot than the activity log holds. */
static void cbt_io_hints(struct dm_target *ti, struct queue_limits *limits)
{
	limits->max_discard_sectors = lower(limits->max_discard_sectors);
	limits->max_hw_discard_sectors = lower(limits->max_hw_discard_sectors);
	limits->max_write_zeroes_sectors = lower(limits->max_write_zeroes_sectors);
#ifdef CBT_HAVE_SECURE_ERASE_LIMIT
	limits->max_secure_erase_sectors = lower(limits->max_secure_erase_sectors);
#endif
}

static struct target_type cbt_target_type = {
	.name = "cbt",
	.version = { 1, 0, 0 },
	/* No PASSES_INTEGRITY: bounced data would not match the checksums that came with it. */
	.features = DM_TARGET_SINGLETON | DM_TARGET_NOWAIT,
	.module = THIS_MODULE,
	.ctr = cbt_ctr,
	.dtr = cbt_dtr,
	.map = cbt_map,
	.end_io = cbt_end_io,
	.presuspend = cbt_presuspend,
	.postsuspend = cbt_postsuspend,
	.preresume = cbt_preresume,
	.status = cbt_status,
	.iterate_devices = cbt_iterate_devices,
	.io_hints = cbt_io_hints,
};

int cbt_target_register(void)
{
	return dm_register_target(&cbt_target_type);
}

void cbt_target_unregister(void)
{
	dm_unregister_target(&cbt_target_type);
}
