// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
#include "layout.h"

#include "bitmap.h"
#include "crc32c.h"

CBT_STATIC_ASSERT(header_size, sizeof(struct cbt_meta_header_disk) == CBT_META_HEADER_BYTES);
CBT_STATIC_ASSERT(header_sequence, __builtin_offsetof(struct cbt_meta_header_disk, sequence) == 16);
CBT_STATIC_ASSERT(header_tracking, __builtin_offsetof(struct cbt_meta_header_disk, tracking) == 32);
CBT_STATIC_ASSERT(superblock_size, sizeof(struct cbt_superblock_disk) == 72);
CBT_STATIC_ASSERT(superblock_state, __builtin_offsetof(struct cbt_superblock_disk, state) == 48);
CBT_STATIC_ASSERT(superblock_gap_ns, __builtin_offsetof(struct cbt_superblock_disk, gap_ns) == 64);
CBT_STATIC_ASSERT(activity_size, sizeof(struct cbt_activity_disk) == CBT_META_BODY_BYTES);
CBT_STATIC_ASSERT(cookie_size, sizeof(struct cbt_cookie_disk) <= CBT_META_BODY_BYTES);
CBT_STATIC_ASSERT(cookie_limit, CBT_META_COOKIE_BYTES_MAX == HERALD_CBT_COOKIE_BYTES_MAX);
CBT_STATIC_ASSERT(region_is_a_word, CBT_REGION_SECTORS_SHIFT == HERALD_CBT_BLOCK_SECTORS_SHIFT + 6);

static u16 le16(u16 value) {
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    return __builtin_bswap16(value);
#else
    return value;
#endif
}

static u64 regions_of(u64 sectors) {
    return (sectors + (1ull << CBT_REGION_SECTORS_SHIFT) - 1) >> CBT_REGION_SECTORS_SHIFT;
}

u64 cbt_meta_bitmap_blocks(u64 sectors) {
    /* At most 2^24 regions: a 32-bit division, as 32-bit kernels have no other. */
    u32 regions = (u32)regions_of(sectors);

    return (regions + CBT_META_WORDS_PER_BLOCK - 1) / CBT_META_WORDS_PER_BLOCK;
}

u64 cbt_meta_blocks(u64 sectors) {
    return 2 * (CBT_META_PAIR_BITMAP + cbt_meta_bitmap_blocks(sectors));
}

void cbt_meta_seal(void* block, u32 kind, u64 sequence, u64 index, const u8* tracking) {
    struct cbt_meta_header_disk* header = block;

    __builtin_memset(header, 0, sizeof(*header));
    header->magic = cbt_le32(CBT_META_MAGIC);
    header->version = le16(CBT_META_VERSION);
    header->kind = le16((u16)kind);
    header->sequence = cbt_le64(sequence);
    header->index = cbt_le64(index);
    __builtin_memcpy(header->tracking, tracking, sizeof(header->tracking));
    header->crc = cbt_le32(cbt_crc32c(0, (const u8*)block + 8, CBT_META_BLOCK_BYTES - 8));
}

u64 cbt_meta_check(const void* block, u32 kind, u64 index, const u8* tracking) {
    const struct cbt_meta_header_disk* header = block;

    if (cbt_le32(header->magic) != CBT_META_MAGIC || le16(header->version) != CBT_META_VERSION ||
        le16(header->kind) != kind || cbt_le64(header->index) != index)
        return 0;
    if (tracking && __builtin_memcmp(header->tracking, tracking, sizeof(header->tracking)) != 0)
        return 0;
    if (cbt_le32(header->crc) != cbt_crc32c(0, (const u8*)block + 8, CBT_META_BLOCK_BYTES - 8))
        return 0;
    return cbt_le64(header->sequence);
}

int cbt_meta_newest(const void* pair, u32 kind, u64 index, const u8* tracking, u64* sequence) {
    u64 first = cbt_meta_check(pair, kind, index, tracking);
    u64 second = cbt_meta_check((const u8*)pair + CBT_META_BLOCK_BYTES, kind, index, tracking);

    if (first == 0 && second == 0) return -1;
    *sequence = first > second ? first : second;
    return second > first;
}

void cbt_superblock_encode(const struct cbt_superblock* superblock, void* block) {
    struct cbt_superblock_disk* disk = cbt_meta_body(block);

    __builtin_memset(block, 0, CBT_META_BLOCK_BYTES);
    disk->sectors = cbt_le64(superblock->sectors);
    disk->bitmap_blocks = cbt_le64(superblock->bitmap_blocks);
    disk->activation = cbt_le64(superblock->activation);
    disk->watch_start = cbt_le64(superblock->watch_start);
    disk->watch_end = cbt_le64(superblock->watch_end);
    disk->block_shift = cbt_le32(HERALD_CBT_BLOCK_SECTORS_SHIFT);
    disk->region_shift = cbt_le32(CBT_REGION_SECTORS_SHIFT);
    disk->state = cbt_le32(superblock->state);
    disk->flags = cbt_le32(superblock->flags);
    disk->gap = cbt_le32(superblock->gap);
    disk->gap_cause = cbt_le32(superblock->gap_cause);
    disk->gap_ns = cbt_le64(superblock->gap_ns);
    cbt_meta_seal(block, CBT_META_SUPERBLOCK, superblock->sequence, 0, superblock->tracking);
}

bool cbt_superblock_decode(const void* pair, struct cbt_superblock* superblock) {
    u64 sequence;
    int which = cbt_meta_newest(pair, CBT_META_SUPERBLOCK, 0, NULL, &sequence);
    const struct cbt_meta_header_disk* header;
    const struct cbt_superblock_disk* disk;

    if (which < 0) return false;
    header = (const void*)((const u8*)pair + (unsigned int)which * CBT_META_BLOCK_BYTES);
    disk = (const void*)((const u8*)header + CBT_META_HEADER_BYTES);
    superblock->sequence = sequence;
    superblock->sectors = cbt_le64(disk->sectors);
    superblock->bitmap_blocks = cbt_le64(disk->bitmap_blocks);
    superblock->activation = cbt_le64(disk->activation);
    superblock->watch_start = cbt_le64(disk->watch_start);
    superblock->watch_end = cbt_le64(disk->watch_end);
    superblock->state = cbt_le32(disk->state);
    superblock->flags = cbt_le32(disk->flags);
    superblock->gap = cbt_le32(disk->gap);
    superblock->gap_cause = cbt_le32(disk->gap_cause);
    superblock->gap_ns = cbt_le64(disk->gap_ns);
    __builtin_memcpy(superblock->tracking, header->tracking, sizeof(superblock->tracking));
    return superblock->sectors != 0 && superblock->sectors <= HERALD_CBT_DISK_SECTORS_MAX &&
           superblock->bitmap_blocks >= cbt_meta_bitmap_blocks(superblock->sectors) &&
           superblock->bitmap_blocks <= cbt_meta_bitmap_blocks(HERALD_CBT_DISK_SECTORS_MAX) &&
           cbt_le32(disk->block_shift) == HERALD_CBT_BLOCK_SECTORS_SHIFT &&
           cbt_le32(disk->region_shift) == CBT_REGION_SECTORS_SHIFT &&
           superblock->state >= CBT_META_NEW && superblock->state <= CBT_META_DETACHED &&
           superblock->gap < HERALD_CBT_CAUSE_COUNT &&
           superblock->gap_cause < HERALD_CBT_CAUSE_COUNT;
}

void cbt_activity_encode(const u32* numbers, u32 count, u64 sequence, const u8* tracking,
                         void* block) {
    struct cbt_activity_disk* disk = cbt_meta_body(block);
    u32 index;

    __builtin_memset(block, 0, CBT_META_BLOCK_BYTES);
    disk->count = cbt_le32(count);
    for (index = 0; index < count; index++) disk->regions[index] = cbt_le32(numbers[index]);
    cbt_meta_seal(block, CBT_META_ACTIVITY, sequence, 0, tracking);
}

bool cbt_activity_decode(const void* block, u32 regions, u32* numbers, u32* count) {
    const struct cbt_activity_disk* disk = (const void*)((const u8*)block + CBT_META_HEADER_BYTES);
    u32 index;

    *count = cbt_le32(disk->count);
    if (*count > CBT_ACTIVITY_REGIONS_MAX) return false;
    for (index = 0; index < *count; index++) {
        numbers[index] = cbt_le32(disk->regions[index]);
        if (numbers[index] >= regions) return false;
    }
    return true;
}

bool cbt_bitmap_fill(const u64* one, const u64* other, u64 words, u64 index, void* block) {
    u64* disk = cbt_meta_body(block);
    u64 first = index * CBT_META_WORDS_PER_BLOCK;
    u64 any = 0;
    u64 word;

    for (word = 0; word < CBT_META_WORDS_PER_BLOCK; word++) {
        u64 bits = first + word < words
                       ? cbt_load(&one[first + word]) | cbt_load(&other[first + word])
                       : 0;

        disk[word] = cbt_le64(bits);
        any |= bits;
    }
    return any != 0;
}

void cbt_bitmap_encode(const u64* one, const u64* other, u64 words, u64 index, u64 sequence,
                       const u8* tracking, void* block) {
    cbt_bitmap_fill(one, other, words, index, block);
    cbt_meta_seal(block, CBT_META_BITMAP, sequence, index, tracking);
}

bool cbt_bitmap_decode(const void* block, u64 index, u64* into, u64 words) {
    const u64* disk = (const void*)((const u8*)block + CBT_META_HEADER_BYTES);
    u64 first = index * CBT_META_WORDS_PER_BLOCK;
    u64 any = 0;
    u64 word;

    for (word = 0; word < CBT_META_WORDS_PER_BLOCK && first + word < words; word++) {
        into[first + word] |= cbt_le64(disk[word]);
        any |= disk[word];
    }
    return any != 0;
}

void cbt_cookie_encode(const void* data, u32 bytes, u64 sequence, const u8* tracking, void* block) {
    struct cbt_cookie_disk* disk = cbt_meta_body(block);

    __builtin_memset(block, 0, CBT_META_BLOCK_BYTES);
    disk->bytes = cbt_le32(bytes);
    if (bytes != 0) __builtin_memcpy(disk->data, data, bytes);
    cbt_meta_seal(block, CBT_META_COOKIE, sequence, 0, tracking);
}

const void* cbt_cookie_decode(const void* block, u32* bytes) {
    const struct cbt_cookie_disk* disk = (const void*)((const u8*)block + CBT_META_HEADER_BYTES);

    *bytes = cbt_le32(disk->bytes);
    return *bytes <= CBT_META_COOKIE_BYTES_MAX ? disk->data : NULL;
}

void cbt_meta_format(u64 sectors, const u8* tracking, u64 number, void* block) {
    u64 pair = number / 2;

    __builtin_memset(block, 0, CBT_META_BLOCK_BYTES);
    /* Sequence 1 is in the second of each pair; the first stays without a whole block. */
    if (cbt_meta_place(pair, 1) != number || pair == 3) return;
    if (pair == CBT_META_PAIR_SUPERBLOCK) {
        struct cbt_superblock superblock;

        __builtin_memset(&superblock, 0, sizeof(superblock));
        superblock.sequence = 1;
        superblock.sectors = sectors;
        superblock.bitmap_blocks = cbt_meta_bitmap_blocks(sectors);
        superblock.state = CBT_META_NEW;
        __builtin_memcpy(superblock.tracking, tracking, sizeof(superblock.tracking));
        cbt_superblock_encode(&superblock, block);
    } else if (pair == CBT_META_PAIR_COOKIE) {
        cbt_cookie_encode(NULL, 0, 1, tracking, block);
    } else if (pair == CBT_META_PAIR_ACTIVITY) {
        cbt_activity_encode(NULL, 0, 1, tracking, block);
    } else {
        cbt_meta_seal(block, CBT_META_BITMAP, 1, pair - CBT_META_PAIR_BITMAP, tracking);
    }
}

u64 cbt_watch_digest(u64 digest, const void* data, size_t bytes) {
    const u64* words = data;
    size_t index;

    for (index = 0; index < bytes / 8; index++) {
        digest = (digest ^ cbt_le64(words[index])) * 0x9e3779b97f4a7c15ull;
        digest ^= digest >> 32;
    }
    return digest;
}
