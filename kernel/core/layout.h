/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The blocks of a meta device: 4 KiB each, in pairs that are written in turn; the newest whole one
 * of a pair counts. Layout: docs/formats/dirty_map.md Promise: a block torn at any byte is refused,
 * and the one before it is found; a block of another meta device, or of another place, is refused.
 * Callers: any; these functions only look at and fill the buffers that they are given.
 * Failure: what is read is range-checked here, before anyone sizes or indexes by it.
 */
#ifndef HERALD_CORE_LAYOUT_H
#define HERALD_CORE_LAYOUT_H

#include "activity.h"
#include "types.h"

#define CBT_META_BLOCK_BYTES 4096u
#define CBT_META_HEADER_BYTES 64u
#define CBT_META_BODY_BYTES (CBT_META_BLOCK_BYTES - CBT_META_HEADER_BYTES)
#define CBT_META_VERSION 1u
#define CBT_META_MAGIC 0x544d4243u /* "CBMT" */
/* A region is 64 blocks: one word of a bitmap. */
#define CBT_META_WORDS_PER_BLOCK (CBT_META_BODY_BYTES / 8u)
#define CBT_META_COOKIE_BYTES_MAX 3072u
/* What tells that a disk changed while nobody tracked it: partition table and file system's
 * superblock at its start, and the copy of the partition table, or md's superblock, at its end. */
#define CBT_WATCH_START_BYTES (128u << 10)
#define CBT_WATCH_END_BYTES (64u << 10)

enum cbt_meta_kind {
    CBT_META_SUPERBLOCK = 1,
    CBT_META_COOKIE = 2,
    CBT_META_ACTIVITY = 3,
    CBT_META_BITMAP = 4,
};

/* Pairs of blocks: pair p is blocks 2p and 2p + 1, written in turn by sequence & 1. */
#define CBT_META_PAIR_SUPERBLOCK 0ull
#define CBT_META_PAIR_COOKIE 1ull
#define CBT_META_PAIR_ACTIVITY 2ull
#define CBT_META_PAIR_BITMAP 4ull /* the first; 3 is unused */

enum cbt_meta_state {
    CBT_META_NEW = 1,    /* formatted, never activated */
    CBT_META_ACTIVE = 2, /* tracking, or stopped without a word: hot regions are dirty */
    CBT_META_CLEAN = 3,  /* stopped in order: the bitmap is all that is dirty */
    CBT_META_DETACHED =
        4, /* taken out on purpose: what happens to the disk now is not our concern */
};

#define CBT_META_FLAG_WATCH_OPEN \
    0x1u /* the watched ranges may have been written since their digests */
#define CBT_META_FLAG_GIVEN_UP \
    0x2u /* persistence was given up: bitmap and log are not to be believed */
#define CBT_META_FLAG_AWAY 0x4u /* the table is suspended or was swapped: writes may pass it by */

struct cbt_meta_header_disk {
    u32 magic;
    u32 crc; /* CRC-32C of bytes 8 to 4095 */
    u16 version;
    u16 kind;
    u32 reserved;
    u64 sequence; /* 1, 2, 3, ... of its pair */
    u64 index;    /* of a bitmap block, else 0 */
    u8 tracking[16];
    u8 zero[16];
};

struct cbt_superblock_disk {
    u64 sectors;
    u64 bitmap_blocks; /* pairs there is room for */
    u64 activation;
    u64 watch_start; /* digests */
    u64 watch_end;
    u32 block_shift;  /* log2 of sectors */
    u32 region_shift; /* log2 of sectors */
    u32 state;
    u32 flags;
    u32 gap;       /* enum herald_cbt_cause; not 0: still open */
    u32 gap_cause; /* of the last one, open or not */
    u64 gap_ns;    /* when */
};

struct cbt_activity_disk {
    u32 count;
    u32 regions[CBT_ACTIVITY_REGIONS_MAX];
};

struct cbt_cookie_disk {
    u32 bytes;
    u32 reserved;
    u8 data[CBT_META_COOKIE_BYTES_MAX];
};

/* A superblock in the machine's own byte order. */
struct cbt_superblock {
    u64 sequence;
    u64 sectors;
    u64 bitmap_blocks;
    u64 activation;
    u64 watch_start;
    u64 watch_end;
    u32 state;
    u32 flags;
    u32 gap;
    u32 gap_cause;
    u64 gap_ns;
    u8 tracking[16];
};

/* Bitmap blocks, and blocks in all, for a disk. */
u64 cbt_meta_bitmap_blocks(u64 sectors);
u64 cbt_meta_blocks(u64 sectors);

static inline u64 cbt_meta_place(u64 pair, u64 sequence) { return pair * 2 + (sequence & 1); }

/* Which bitmap block has the region, and which word of it. */
static inline u32 cbt_meta_bitmap_of_region(u32 region) {
    return region / CBT_META_WORDS_PER_BLOCK;
}

static inline void* cbt_meta_body(void* block) { return (u8*)block + CBT_META_HEADER_BYTES; }

/* The body is there: adds header and checksum. */
void cbt_meta_seal(void* block, u32 kind, u64 sequence, u64 index, const u8* tracking);

/* Is it a whole block of this kind, place and tracking (NULL: any)? Its sequence, or 0. */
u64 cbt_meta_check(const void* block, u32 kind, u64 index, const u8* tracking);

/* Which of a pair counts: 0 or 1, or -1 when neither is whole. Its sequence goes to `sequence`. */
int cbt_meta_newest(const void* pair, u32 kind, u64 index, const u8* tracking, u64* sequence);

void cbt_superblock_encode(const struct cbt_superblock* superblock, void* block);
/* Of a pair. False: neither is whole and sane. */
bool cbt_superblock_decode(const void* pair, struct cbt_superblock* superblock);

/* Regions of a whole activity block go to `numbers`; false when a number is not below `regions`. */
void cbt_activity_encode(const u32* numbers, u32 count, u64 sequence, const u8* tracking,
                         void* block);
bool cbt_activity_decode(const void* block, u32 regions, u32* numbers, u32* count);

/* Words [index * CBT_META_WORDS_PER_BLOCK, ...) of the union of two bitmaps of `words` words. The
 * body alone may be filled under a lock, and the block sealed after it. Did it hold any? */
bool cbt_bitmap_fill(const u64* one, const u64* other, u64 words, u64 index, void* block);
void cbt_bitmap_encode(const u64* one, const u64* other, u64 words, u64 index, u64 sequence,
                       const u8* tracking, void* block);
/* Ors the bits of a whole block into the bitmap. Did it hold any? */
bool cbt_bitmap_decode(const void* block, u64 index, u64* into, u64 words);

/* bytes: at most CBT_META_COOKIE_BYTES_MAX. */
void cbt_cookie_encode(const void* data, u32 bytes, u64 sequence, const u8* tracking, void* block);
/* Of a whole block: the data's address; NULL when its length is not sane. */
const void* cbt_cookie_decode(const void* block, u32* bytes);

/* Block `number` of a freshly formatted meta device for a disk of `sectors`. */
void cbt_meta_format(u64 sectors, const u8* tracking, u64 number, void* block);

/* Digest of a watched range. Against accident, not against malice. bytes: a multiple of 8. */
u64 cbt_watch_digest(u64 digest, const void* data, size_t bytes);

#endif
