/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Writes in flight of one disk, by place. A write that overlaps earlier ones waits for all of them;
 * later ones that overlap it wait for it in turn: so each place is written in order of submission.
 * Promise: a write is ready when no earlier write that it overlaps is in the set.
 * Callers: under the disk's lock.
 */
#ifndef CBT_OVERLAP_H
#define CBT_OVERLAP_H

#include <linux/list.h>
#include <linux/rbtree.h>
#include <linux/types.h>

struct cbt_overlap {
	struct rb_node node;
	u64 first; /* sectors, both included */
	u64 last;
	u64 subtree_last;
	u64 order;		/* of submission */
	u32 blockers;		/* earlier overlapping writes in the set */
	struct list_head ready; /* on the caller's list, once the last blocker has gone */
};

struct cbt_overlaps {
	struct rb_root_cached tree;
	u64 order;
};

bool cbt_overlap_add_to_others(struct cbt_overlaps *set, struct cbt_overlap *entry);
void cbt_overlap_remove_from_others(struct cbt_overlaps *set, struct cbt_overlap *entry,
				    struct list_head *ready);

/* Adds the write; true when nothing blocks it. */
static inline bool cbt_overlap_add(struct cbt_overlaps *set, struct cbt_overlap *entry)
{
	entry->order = set->order++;
	entry->blockers = 0;
	INIT_LIST_HEAD(&entry->ready);
	if (!RB_EMPTY_ROOT(&set->tree.rb_root))
		return cbt_overlap_add_to_others(set, entry);
	/* Alone, as most are: the tree's functions are most of what this would cost. */
	entry->subtree_last = entry->last;
	rb_link_node(&entry->node, NULL, &set->tree.rb_root.rb_node);
	rb_insert_color_cached(&entry->node, &set->tree, true);
	return true;
}

/* Removes it; those that it alone still blocked go to the end of `ready`, oldest first. */
static inline void cbt_overlap_remove(struct cbt_overlaps *set, struct cbt_overlap *entry,
				      struct list_head *ready)
{
	if (set->tree.rb_root.rb_node == &entry->node && !entry->node.rb_left &&
	    !entry->node.rb_right)
		set->tree = RB_ROOT_CACHED;
	else
		cbt_overlap_remove_from_others(set, entry, ready);
}

/* All of them, by place. */
static inline struct cbt_overlap *cbt_overlap_first(const struct cbt_overlaps *set)
{
	return rb_entry_safe(rb_first_cached(&set->tree), struct cbt_overlap, node);
}

static inline struct cbt_overlap *cbt_overlap_next(const struct cbt_overlap *entry)
{
	return rb_entry_safe(rb_next(&entry->node), struct cbt_overlap, node);
}

#endif
