/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The driver-wide clock: the later of the wall clock and one more than the last value given.
 * Promise: values are unique and increase over all disks, in the order in which the calls take
 * effect. Callers: any context, any number at once; a slot's time is taken inside its ring's
 * critical section, so that the order of times is the order of slots too. A wall clock that is set
 * back only makes it count by ones until the wall has caught up.
 */
#ifndef HERALD_CORE_CLOCK_H
#define HERALD_CORE_CLOCK_H

#include "types.h"

static inline u64 cbt_clock_next(u64* last, u64 wall_ns) {
    u64 before = cbt_load(last);
    u64 next;

    do {
        next = wall_ns > before ? wall_ns : before + 1;
    } while (!__atomic_compare_exchange_n(last, &before, next, true, __ATOMIC_ACQ_REL,
                                          __ATOMIC_RELAXED));
    return next;
}

#endif
