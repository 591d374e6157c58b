/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * One bit for each 64 KiB block, in words of 64. Bit n is bit n % 64 of word n / 64.
 * Callers: changes under the disk's ring lock; words may be read without it where a bit that is
 * being set may be missed. Owns nothing: the words are the caller's, cbt_bitmap_words(blocks) of
 * them.
 */
#ifndef HERALD_CORE_BITMAP_H
#define HERALD_CORE_BITMAP_H

#include "../../include/herald/abi/cbt.h"
#include "types.h"

struct cbt_bitmap {
    u64* words;
    u64 blocks;
    u64 low; /* words outside [low, high) are 0: clearing a large map costs what was set */
    u64 high;
};

static inline u64 cbt_bitmap_words(u64 blocks) { return (blocks + 63) / 64; }

static inline u64 cbt_blocks_of_sectors(u64 sectors) {
    return (sectors + (1ull << HERALD_CBT_BLOCK_SECTORS_SHIFT) - 1) >>
           HERALD_CBT_BLOCK_SECTORS_SHIFT;
}

void cbt_bitmap_init(struct cbt_bitmap* bitmap, u64* words, u64 blocks);

/* Sets [first, first + count), clipped to the map. */
void cbt_bitmap_set(struct cbt_bitmap* bitmap, u64 first, u64 count);

/* The blocks that a range of sectors touches. */
static inline void cbt_bitmap_set_sectors(struct cbt_bitmap* bitmap, u64 sector, u64 sectors) {
    u64 first = sector >> HERALD_CBT_BLOCK_SECTORS_SHIFT;
    u64 last = (sector + sectors - 1) >> HERALD_CBT_BLOCK_SECTORS_SHIFT;
    u64 word = first / 64;

    if (sectors == 0) return;
    /* Most writes are within one word, and find their bits set. */
    if (word == last / 64 && word >= bitmap->low && word < bitmap->high) {
        u64 mask = ((2ull << (last - first)) - 1) << (first % 64);

        if ((bitmap->words[word] & mask) == mask) return;
    }
    cbt_bitmap_set(bitmap, first, last - first + 1);
}

/* Makes [first, blocks) clear: the disk shrank. */
void cbt_bitmap_clip(struct cbt_bitmap* bitmap, u64 first);

void cbt_bitmap_clear(struct cbt_bitmap* bitmap);

static inline bool cbt_bitmap_test(const struct cbt_bitmap* bitmap, u64 block) {
    return (cbt_load(&bitmap->words[block / 64]) >> (block % 64)) & 1;
}

static inline bool cbt_bitmap_is_empty(const struct cbt_bitmap* bitmap) {
    return bitmap->low >= bitmap->high;
}

u64 cbt_bitmap_count(const struct cbt_bitmap* bitmap);

#endif
