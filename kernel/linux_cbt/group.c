// SPDX-License-Identifier: GPL-2.0-only
#include "group.h"

#include <linux/jiffies.h>
#include <linux/ktime.h>

#include "trace.h"
#include "write.h"

/* Level 5: nobody else takes more than one disk's lock. */
static DEFINE_MUTEX(cbt_group_mutex);

struct group {
	unsigned int count;
	struct cbt_disk *disks[HERALD_CBT_DISKS_PER_CALL_MAX]; /* NULL: no such disk */
};

static void leave(struct group *group)
{
	unsigned int index;

	for (index = 0; index < group->count; index++)
		if (group->disks[index])
			cbt_disk_put(group->disks[index]);
}

static int gather(struct group *group, u32 count, struct herald_cbt_answer_abi *answers)
{
	unsigned int index;
	unsigned int other;

	if (count == 0 || count > HERALD_CBT_DISKS_PER_CALL_MAX)
		return -EINVAL;
	group->count = 0;
	for (index = 0; index < HERALD_CBT_DISKS_PER_CALL_MAX; index++) {
		struct herald_cbt_answer_abi *answer = &answers[index];

		if (answer->result || answer->cause || answer->slot)
			return -EINVAL;
		if (index >= count) {
			if (answer->disk.major || answer->disk.minor)
				return -EINVAL;
			continue;
		}
		/* A lock taken twice would never be had. */
		for (other = 0; other < index; other++)
			if (answers[other].disk.major == answer->disk.major &&
			    answers[other].disk.minor == answer->disk.minor)
				return -EINVAL;
	}
	for (index = 0; index < count; index++)
		group->disks[index] =
			cbt_disk_find(answers[index].disk.major, answers[index].disk.minor);
	group->count = count;
	return 0;
}

static void lock_all(struct group *group)
{
	unsigned int index;

	mutex_lock(&cbt_group_mutex);
	local_irq_disable();
	for (index = 0; index < group->count; index++) {
		struct cbt_disk *disk = group->disks[index];

		if (!disk)
			continue;
		spin_lock_nest_lock(&disk->lock, &cbt_group_mutex);
		/* For sparse, which cannot count locks that a loop takes. */
		__release(&disk->lock);
	}
}

static void unlock_all(struct group *group)
{
	unsigned int index;

	for (index = group->count; index-- > 0;) {
		struct cbt_disk *disk = group->disks[index];

		if (!disk)
			continue;
		__acquire(&disk->lock);
		spin_unlock(&disk->lock);
	}
	local_irq_enable();
	mutex_unlock(&cbt_group_mutex);
}

static void answer_with(struct herald_cbt_answer_abi *answer, u32 result, u32 cause)
{
	answer->result = result;
	answer->cause = cause;
}

/* What would become of a tag on this disk? Under its lock. */
static void judge(struct cbt_disk *disk, struct cbt_file *file, bool held,
		  struct herald_cbt_answer_abi *answer)
{
	if (!disk || disk->gone)
		answer_with(answer, HERALD_CBT_REFUSED, HERALD_CBT_CAUSE_NO_DISK);
	else if (held && disk->held_by != file)
		answer_with(answer, HERALD_CBT_REFUSED,
			    disk->hold_ended ? disk->hold_ended : HERALD_CBT_CAUSE_EXPIRED);
	else if (disk->mode.mode == HERALD_CBT_MODE_MAP)
		answer_with(answer, HERALD_CBT_REFUSED, HERALD_CBT_CAUSE_NOT_ORDERED);
	else if (!cbt_ring_slots_free(&disk->ring))
		answer_with(answer, HERALD_CBT_REFUSED, HERALD_CBT_CAUSE_NO_SLOT);
	else if (disk->mode.mode == HERALD_CBT_MODE_EXTENTS)
		answer_with(answer, HERALD_CBT_DOWNGRADED, HERALD_CBT_CAUSE_NOT_ORDERED);
	else if (disk->gap || cbt_generations_scan_due(&disk->generations))
		answer_with(answer, HERALD_CBT_DOWNGRADED, HERALD_CBT_CAUSE_SCAN_DUE);
	else
		answer_with(answer, HERALD_CBT_LANDED, HERALD_CBT_CAUSE_NONE);
}

int cbt_tag(struct cbt_file *file, void *argument)
{
	struct herald_cbt_tag_abi *tag = argument;
	struct cbt_change change = {
		.state = HERALD_CBT_COMMITTED,
		.kind = HERALD_CBT_TAG,
		.argument = tag->flags,
		.id = tag->id,
	};
	bool all = tag->flags & HERALD_CBT_TAG_ALL;
	bool landed = true;
	struct group group;
	unsigned int index;
	int error;

	if (tag->flags & ~(HERALD_CBT_TAG_ALL | HERALD_CBT_TAG_HELD) || tag->reserved ||
	    tag->time_ns)
		return -EINVAL;
	error = gather(&group, tag->disks, tag->answers);
	if (error)
		return error;
	lock_all(&group);
	/* With all locks held: every write on these disks is before it or after it on all of them.
	 */
	tag->time_ns = cbt_now();
	for (index = 0; index < group.count; index++) {
		judge(group.disks[index], file, tag->flags & HERALD_CBT_TAG_HELD,
		      &tag->answers[index]);
		landed &= tag->answers[index].result == HERALD_CBT_LANDED;
	}
	for (index = 0; index < group.count; index++) {
		struct herald_cbt_answer_abi *answer = &tag->answers[index];
		struct cbt_disk *disk = group.disks[index];

		if (all && !landed)
			answer->result = HERALD_CBT_REFUSED;
		if (answer->result != HERALD_CBT_REFUSED) {
			change.flags = answer->cause == HERALD_CBT_CAUSE_NOT_ORDERED
					       ? HERALD_CBT_SLOT_DOWNGRADED
					       : 0;
			answer->slot = cbt_ring_push(&disk->ring, &change, 0, tag->time_ns);
			disk->counts.tags++;
			cbt_disk_publish(disk);
			wake_up_interruptible(&disk->wait);
		}
		if (disk)
			disk->counts.causes[answer->cause]++;
		trace_cbt_tag(answer->disk.major, answer->disk.minor, answer->slot, tag->time_ns,
			      answer->result);
	}
	unlock_all(&group);
	leave(&group);
	return 0;
}

/* Under disk->lock. */
static void end_hold(struct cbt_disk *disk, u32 cause)
{
	u64 held_ns = ktime_get_ns() - disk->held_since_ns;

	if (held_ns > disk->counts.held_ns_max)
		disk->counts.held_ns_max = held_ns;
	disk->counts.causes[cause]++;
	disk->held_by = NULL;
	disk->hold_ended = cause;
	list_splice_tail_init(&disk->held_writes, &disk->ready);
	cbt_write_kick(disk);
	cbt_disk_event(disk);
}

void cbt_hold_end(struct cbt_disk *disk, struct cbt_file *file, u32 cause)
{
	spin_lock_irq(&disk->lock);
	if (disk->held_by && (!file || disk->held_by == file))
		end_hold(disk, cause);
	spin_unlock_irq(&disk->lock);
}

void cbt_hold_work(struct work_struct *work)
{
	struct cbt_disk *disk = container_of(to_delayed_work(work), struct cbt_disk, hold_work);

	cbt_hold_end(disk, NULL, HERALD_CBT_CAUSE_EXPIRED);
}

void cbt_hold_end_all(struct cbt_file *file)
{
	struct cbt_disk *disk;

	mutex_lock(&cbt_disks_mutex);
	list_for_each_entry(disk, &cbt_disks, all)
		cbt_hold_end(disk, file, HERALD_CBT_CAUSE_NONE);
	mutex_unlock(&cbt_disks_mutex);
}

int cbt_hold(struct cbt_file *file, void *argument)
{
	struct herald_cbt_hold_abi *hold = argument;
	bool release = hold->flags & HERALD_CBT_HOLD_RELEASE;
	u32 deadline_ms = hold->deadline_ms ? hold->deadline_ms : HERALD_CBT_HOLD_MS_DEFAULT;
	struct group group;
	unsigned int index;
	int error;

	if (hold->flags & ~HERALD_CBT_HOLD_RELEASE || deadline_ms > HERALD_CBT_HOLD_MS_MAX ||
	    (release && hold->deadline_ms))
		return -EINVAL;
	error = gather(&group, hold->disks, hold->answers);
	if (error)
		return error;
	for (index = 0; index < group.count; index++) {
		struct herald_cbt_answer_abi *answer = &hold->answers[index];
		struct cbt_disk *disk = group.disks[index];

		answer_with(answer, HERALD_CBT_REFUSED, HERALD_CBT_CAUSE_NO_DISK);
		if (!disk)
			continue;
		spin_lock_irq(&disk->lock);
		answer->slot = disk->ring.head;
		if (release && disk->held_by == file) {
			end_hold(disk, HERALD_CBT_CAUSE_NONE);
			answer_with(answer, HERALD_CBT_LANDED, HERALD_CBT_CAUSE_NONE);
		} else if (release) {
			answer_with(answer, HERALD_CBT_REFUSED,
				    disk->hold_ended ? disk->hold_ended : HERALD_CBT_CAUSE_EXPIRED);
		} else if (disk->held_by) {
			answer_with(answer, HERALD_CBT_REFUSED, HERALD_CBT_CAUSE_HELD);
		} else if (!disk->target) {
			answer_with(answer, HERALD_CBT_REFUSED,
				    disk->gone ? HERALD_CBT_CAUSE_NO_DISK
					       : HERALD_CBT_CAUSE_SUSPENDED);
		} else {
			disk->held_by = file;
			disk->hold_ended = HERALD_CBT_CAUSE_NONE;
			disk->held_since_ns = ktime_get_ns();
			mod_delayed_work(cbt_fast_wq, &disk->hold_work,
					 msecs_to_jiffies(deadline_ms));
			cbt_disk_event(disk);
			answer_with(answer, HERALD_CBT_LANDED, HERALD_CBT_CAUSE_NONE);
		}
		spin_unlock_irq(&disk->lock);
	}
	leave(&group);
	return 0;
}

int cbt_cut(struct cbt_file *file, void *argument)
{
	struct herald_cbt_cut_abi *cut = argument;
	struct group group;
	unsigned int index;
	int error;

	if (cut->flags || cut->reserved || cut->time_ns)
		return -EINVAL;
	error = gather(&group, cut->disks, cut->answers);
	if (error)
		return error;
	cut->time_ns = cbt_now();
	for (index = 0; index < group.count; index++) {
		struct herald_cbt_answer_abi *answer = &cut->answers[index];
		struct cbt_disk *disk = group.disks[index];

		answer_with(answer, HERALD_CBT_REFUSED, HERALD_CBT_CAUSE_NO_DISK);
		if (!disk)
			continue;
		/*
		 * A slot with a smaller time took it inside this lock, and published itself before
		 * it let go: having had the lock is having seen it.
		 */
		spin_lock_irq(&disk->lock);
		if (!disk->gone) {
			answer_with(answer, HERALD_CBT_LANDED, HERALD_CBT_CAUSE_NONE);
			answer->slot = disk->ring.head;
		}
		spin_unlock_irq(&disk->lock);
	}
	leave(&group);
	return 0;
}
