// SPDX-License-Identifier: GPL-2.0-only
/*
 * The portable core, as one unit: its functions are short and called for every write, and the
 * compiler inlines them into each other.
 */
#include <linux/stddef.h>
#include <linux/string.h>

#include "../core/activity.c"
#include "../core/bitmap.c"
#include "../core/crc32c.c"
#include "../core/generations.c"
#include "../core/layout.c"
#include "../core/mode.c"
#include "../core/ring.c"
