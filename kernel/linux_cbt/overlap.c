// SPDX-License-Identifier: GPL-2.0-only
#include "overlap.h"

#include <linux/compiler.h>
#include <linux/interval_tree_generic.h>
#include <linux/rbtree_augmented.h>

#define FIRST(entry) ((entry)->first)
#define LAST(entry) ((entry)->last)
INTERVAL_TREE_DEFINE(struct cbt_overlap, node, u64, subtree_last, FIRST, LAST,
		     static __maybe_unused, tree)

bool cbt_overlap_add_to_others(struct cbt_overlaps *set, struct cbt_overlap *entry)
{
	struct cbt_overlap *other;

	for (other = tree_iter_first(&set->tree, entry->first, entry->last); other;
	     other = tree_iter_next(other, entry->first, entry->last))
		entry->blockers++;
	tree_insert(entry, &set->tree);
	return entry->blockers == 0;
}

void cbt_overlap_remove_from_others(struct cbt_overlaps *set, struct cbt_overlap *entry,
				    struct list_head *ready)
{
	struct cbt_overlap *other;

	tree_remove(entry, &set->tree);
	for (other = tree_iter_first(&set->tree, entry->first, entry->last); other;
	     other = tree_iter_next(other, entry->first, entry->last)) {
		struct list_head *at;

		if (other->order < entry->order || --other->blockers != 0)
			continue;
		/* Few at a time: the tree is walked by place, the list is by age. */
		list_for_each_prev(at, ready)
			if (list_entry(at, struct cbt_overlap, ready)->order < other->order)
				break;
		list_add(&other->ready, at);
	}
}
