// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
#include "activity.h"

static u32 bucket_of(u32 region) {
    return (region * 2654435761u) >> 23; /* 512 of them: the top 9 bits */
}

static struct cbt_region* find(struct cbt_activity* activity, u32 number) {
    u16 at = activity->buckets[bucket_of(number)];

    while (at != 0) {
        struct cbt_region* region = &activity->regions[at - 1];

        if (region->number == number) return region;
        at = region->next;
    }
    return NULL;
}

static struct cbt_region* add(struct cbt_activity* activity, u32 number) {
    u16 at = activity->free;
    u16* bucket = &activity->buckets[bucket_of(number)];
    struct cbt_region* region;

    if (at == 0) return NULL;
    region = &activity->regions[at - 1];
    activity->free = region->next;
    region->number = number;
    region->in_flight = 0;
    region->wanted = 0;
    region->state = CBT_REGION_ADDED;
    region->used = activity->tick;
    region->next = *bucket;
    *bucket = at;
    activity->used++;
    activity->added++;
    return region;
}

static void drop(struct cbt_activity* activity, struct cbt_region* region) {
    u16 at = (u16)(region - activity->regions) + 1;
    u16* link = &activity->buckets[bucket_of(region->number)];

    while (*link != at) link = &activity->regions[*link - 1].next;
    *link = region->next;
    region->state = CBT_REGION_FREE;
    region->next = activity->free;
    activity->free = at;
    activity->used--;
}

void cbt_activity_init(struct cbt_activity* activity, u32 capacity) {
    u32 index;

    __builtin_memset(activity, 0, sizeof(*activity));
    activity->capacity = capacity < CBT_ACTIVITY_REGIONS_MAX ? capacity : CBT_ACTIVITY_REGIONS_MAX;
    for (index = activity->capacity; index-- > 0;) {
        activity->regions[index].next = activity->free;
        activity->free = (u16)(index + 1);
    }
}

void cbt_activity_load(struct cbt_activity* activity, const u32* numbers, u32 count) {
    u32 index;

    for (index = 0; index < count; index++) {
        struct cbt_region* region =
            find(activity, numbers[index]) ? NULL : add(activity, numbers[index]);

        if (!region) continue;
        region->state = CBT_REGION_HOT;
        activity->added--;
    }
}

enum cbt_activity_entry cbt_activity_enter(struct cbt_activity* activity, u32 first, u32 count) {
    enum cbt_activity_entry answer = CBT_ACTIVITY_ENTERED;
    u32 number;

    activity->tick++;
    for (number = first; number != first + count; number++) {
        struct cbt_region* region = find(activity, number);

        if (!region) region = add(activity, number);
        if (!region) {
            answer = CBT_ACTIVITY_FULL;
            continue;
        }
        region->used = activity->tick;
        if (region->state == CBT_REGION_RETIRING) {
            region->state = CBT_REGION_HOT;
            activity->retiring--;
        } else if (region->state == CBT_REGION_DROPPING) {
            region->wanted = 1;
        }
        if (region->state != CBT_REGION_HOT && answer == CBT_ACTIVITY_ENTERED)
            answer = CBT_ACTIVITY_WAIT;
    }
    if (answer != CBT_ACTIVITY_ENTERED) {
        activity->misses++;
        return answer;
    }
    activity->hits++;
    for (number = first; number != first + count; number++) find(activity, number)->in_flight++;
    return answer;
}

void cbt_activity_leave(struct cbt_activity* activity, u32 first, u32 count) {
    u32 number;

    for (number = first; number != first + count; number++) {
        struct cbt_region* region = find(activity, number);

        if (region && region->in_flight != 0) region->in_flight--;
    }
}

static bool is_idle(const struct cbt_region* region) {
    return region->state == CBT_REGION_HOT && region->in_flight == 0;
}

/* How many idle regions were last used before `tick`. */
static u32 idle_before(const struct cbt_activity* activity, u64 tick) {
    u32 count = 0;
    u32 index;

    for (index = 0; index < activity->capacity; index++)
        if (is_idle(&activity->regions[index]) && activity->regions[index].used < tick) count++;
    return count;
}

u32 cbt_activity_retire(struct cbt_activity* activity, u32 want, u32* chosen) {
    u64 low = 0;
    u64 high = activity->tick + 1;
    u32 count = 0;
    u32 index;

    /* The least tick before which at least `want` were last used: some 40 walks over a small array,
     * for a list in order of use that every write would have to keep. */
    while (low < high) {
        u64 middle = low + (high - low) / 2;

        if (idle_before(activity, middle) < want)
            low = middle + 1;
        else
            high = middle;
    }
    for (index = 0; index < activity->capacity && count < want; index++) {
        struct cbt_region* region = &activity->regions[index];

        if (is_idle(region) && region->used < low) {
            region->state = CBT_REGION_RETIRING;
            activity->retiring++;
            chosen[count++] = region->number;
        }
    }
    return count;
}

u32 cbt_activity_compose(struct cbt_activity* activity, bool drop, u32* numbers) {
    u32 count = 0;
    u32 index;

    for (index = 0; index < activity->capacity; index++) {
        struct cbt_region* region = &activity->regions[index];

        if (region->state == CBT_REGION_ADDED)
            region->state = CBT_REGION_WRITING;
        else if (region->state == CBT_REGION_RETIRING && drop)
            region->state = CBT_REGION_DROPPING;
        if (region->state == CBT_REGION_WRITING || region->state == CBT_REGION_HOT ||
            region->state == CBT_REGION_RETIRING)
            numbers[count++] = region->number;
    }
    activity->added = 0;
    if (drop) activity->retiring = 0;
    return count;
}

void cbt_activity_durable(struct cbt_activity* activity) {
    u32 index;

    for (index = 0; index < activity->capacity; index++) {
        struct cbt_region* region = &activity->regions[index];

        if (region->state == CBT_REGION_WRITING) {
            region->state = CBT_REGION_HOT;
        } else if (region->state == CBT_REGION_DROPPING && region->wanted) {
            region->wanted = 0;
            region->state = CBT_REGION_ADDED;
            activity->added++;
        } else if (region->state == CBT_REGION_DROPPING) {
            drop(activity, region);
        }
    }
}

bool cbt_activity_has(const struct cbt_activity* activity, u32 region) {
    return find((struct cbt_activity*)(unsigned long)activity, region) != NULL;
}
