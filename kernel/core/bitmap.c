// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
#include "bitmap.h"

void cbt_bitmap_init(struct cbt_bitmap* bitmap, u64* words, u64 blocks) {
    bitmap->words = words;
    bitmap->blocks = blocks;
    bitmap->low = cbt_bitmap_words(blocks);
    bitmap->high = 0;
}

void cbt_bitmap_set(struct cbt_bitmap* bitmap, u64 first, u64 count) {
    u64 end;
    u64 word;

    if (first >= bitmap->blocks || count == 0) return;
    end = count > bitmap->blocks - first ? bitmap->blocks : first + count;
    for (word = first / 64; word * 64 < end; word++) {
        u64 from = word * 64 > first ? 0 : first - word * 64;
        u64 to = end - word * 64 < 64 ? end - word * 64 : 64;
        u64 mask = (~0ull << from) & (~0ull >> (64 - to));
        u64 old = bitmap->words[word];

        /* A store dirties a cache line that all processors share: most writes find their bit set.
         */
        if ((old & mask) != mask) cbt_store(&bitmap->words[word], old | mask);
    }
    if (first / 64 < bitmap->low) bitmap->low = first / 64;
    if ((end + 63) / 64 > bitmap->high) bitmap->high = (end + 63) / 64;
}

void cbt_bitmap_clip(struct cbt_bitmap* bitmap, u64 first) {
    u64 word;

    if (first >= bitmap->blocks) return;
    word = first / 64;
    if (first % 64) {
        cbt_store(&bitmap->words[word], bitmap->words[word] & ~(~0ull << (first % 64)));
        word++;
    }
    for (; word < bitmap->high; word++) cbt_store(&bitmap->words[word], 0);
    if (bitmap->high > (first + 63) / 64) bitmap->high = (first + 63) / 64;
}

void cbt_bitmap_clear(struct cbt_bitmap* bitmap) {
    if (bitmap->high > bitmap->low)
        __builtin_memset(&bitmap->words[bitmap->low], 0,
                         (bitmap->high - bitmap->low) * sizeof(u64));
    bitmap->low = cbt_bitmap_words(bitmap->blocks);
    bitmap->high = 0;
}

u64 cbt_bitmap_count(const struct cbt_bitmap* bitmap) {
    u64 count = 0;
    u64 word;

    for (word = bitmap->low; word < bitmap->high; word++) {
        u64 bits = cbt_load(&bitmap->words[word]);

        /* Without the builtin: a kernel has no library for it. */
        for (; bits; bits &= bits - 1) count++;
    }
    return count;
}
