/* SPDX-License-Identifier: GPL-2.0-only */
/* Modes, causes and persistence as `dmsetup status` shows them. */
#ifndef CBT_NAMES_H
#define CBT_NAMES_H

#include "../../include/herald/abi/cbt.h"

static inline const char *cbt_mode_name(u32 mode)
{
	static const char *const names[] = { "?", "map", "extents", "ordered" };

	return names[mode <= HERALD_CBT_MODE_ORDERED ? mode : 0];
}

static inline const char *cbt_cause_name(u32 cause)
{
	static const char *const names[HERALD_CBT_CAUSE_COUNT] = {
		"-",
		"no-reader-yet",
		"payload-full",
		"slots-full",
		"no-memory",
		"climbed",
		"no-meta",
		"meta-new",
		"meta-unreadable",
		"meta-write-failed",
		"meta-slow",
		"meta-full",
		"changed-untracked",
		"watch-open",
		"watch-unreadable",
		"not-detached",
		"not-ordered",
		"no-slot",
		"no-disk",
		"suspended",
		"expired",
		"held",
		"resized",
		"detached",
		"persistence-lost",
		"scan-due",
	};

	return cause < HERALD_CBT_CAUSE_COUNT ? names[cause] : "?";
}

static inline const char *cbt_persistence_name(u32 persistence)
{
	static const char *const names[] = { "?", "none", "active", "given-up" };

	return names[persistence <= HERALD_CBT_PERSISTENCE_GIVEN_UP ? persistence : 0];
}

#endif
