// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
#include "mode.h"

static void enter(struct cbt_mode* mode, u32 to, u32 cause, u64 now_ns) {
    if (now_ns > mode->since_ns) mode->spent_ns[mode->mode - 1] += now_ns - mode->since_ns;
    mode->mode = to;
    mode->cause = cause;
    mode->since_ns = now_ns;
}

void cbt_mode_init(struct cbt_mode* mode, u32 first, u32 cause, u64 now_ns) {
    __builtin_memset(mode, 0, sizeof(*mode));
    mode->mode = first;
    mode->cause = cause;
    mode->since_ns = now_ns;
}

bool cbt_mode_sink(struct cbt_mode* mode, u32 to, u32 cause, u64 now_ns) {
    if (to >= mode->mode) return false;
    enter(mode, to, cause, now_ns);
    mode->sank[to - 1]++;
    return true;
}

u32 cbt_mode_reachable(const struct cbt_mode* mode, const struct cbt_ring* ring) {
    if (mode->mode == HERALD_CBT_MODE_ORDERED || ring->slot_count == 0) return mode->mode;
    /* The climb itself takes a slot. */
    if (cbt_ring_slots_free(ring) * 2 < ring->slot_count || cbt_ring_slots_free(ring) < 2)
        return mode->mode;
    if (ring->payload_bytes != 0 && cbt_ring_payload_free(ring) * 2 >= ring->payload_bytes)
        return HERALD_CBT_MODE_ORDERED;
    return HERALD_CBT_MODE_EXTENTS;
}

void cbt_mode_climb(struct cbt_mode* mode, u32 to, u64 now_ns) {
    enter(mode, to, HERALD_CBT_CAUSE_CLIMBED, now_ns);
    mode->climbed++;
}
