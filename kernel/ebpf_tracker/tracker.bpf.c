// SPDX-License-Identifier: GPL-2.0-only
/*
 * Marks the blocks that the requests of one disk change, at the moment a request is handed to the
 * driver and again when it completes. The order of the steps in each handler is what no loss
 * rests on; docs/internals/ebpf_tracker.md has the argument.
 *
 *   issue:     write extent into the open table, then mark
 *   complete:  mark, then close the extent
 *
 * A drainer clears marks, reads the disk, and then marks again what is open: a write is either
 * marked after the drainer's clear or still open when it looks.
 */
#include "vmlinux.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "herald/abi/ebpf_tracker.h"
#include "herald/limits.h"

char LICENSE[] SEC("license") = "GPL";

/* Set before loading; one set of programs and maps serves one disk. */
const volatile __u32 disk_dev = 0;      /* dev_t as the kernel keeps it */
const volatile __u64 disk_seq = 0;      /* the attachment, not only the name */
const volatile __u64 disk_blocks = 0;   /* bits in `live` */
const volatile __u32 open_slots = 1;    /* a power of two */
const volatile bool fault_no_submission = false;
const volatile bool fault_no_open = false;
const volatile __u32 fault_drop_completions_percent = 0;

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u64);
} live SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(map_flags, BPF_F_MMAPABLE);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct herald_open_write_abi);
} open_writes SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, HERALD_EBPF_COUNTERS);
    __type(key, __u32);
    __type(value, __u64);
} counters SEC(".maps");

/* A discard request gathers bios: several ranges (NVMe: 256), or many neighbours as one range. */
#define DISCARD_BIOS_MAX 1024
#define OP_MASK 0xff
#define NO_SLOT (-1)

struct extent {
    __u64 first; /* block */
    __u64 count;
};

static __always_inline void count_event(__u32 index)
{
    __u64 *value = bpf_map_lookup_elem(&counters, &index);

    /* Atomic: an interrupt on this processor may count in the middle. */
    if (value)
        __sync_fetch_and_add(value, 1);
}

static __always_inline void mark_word(__u32 word, __u64 bits)
{
    __u64 *value = bpf_map_lookup_elem(&live, &word);

    /*
     * The form that returns the old value is ordered against everything before and after it, on
     * every architecture; the plain form is not. Using the result keeps the compiler from
     * choosing the plain one.
     */
    if (value && __sync_fetch_and_or(value, bits) == ~0ull)
        asm volatile("" ::: "memory");
}

struct mark_context {
    __u64 first;
    __u64 end;
    __u64 word;
};

/* The most that bpf_loop does, and twice that is a word for each 64 blocks of the largest disk. */
#define LOOPS_MAX (1u << 23)
_Static_assert(HERALD_DISK_BYTES_MAX / HERALD_BLOCK_BYTES / 64 <= 2ull * LOOPS_MAX,
               "all of a disk");

static long mark_step(__u32 index, struct mark_context *context)
{
    __u64 word = context->word + index;
    __u64 low = word << 6;
    __u64 bits = ~0ull;

    if (context->first > low)
        bits &= ~0ull << (context->first - low);
    if (context->end < low + 64)
        bits &= ~0ull >> (low + 64 - context->end);
    mark_word(word, bits);
    return 0;
}

/*
 * Global, as slot_of() is: the verifier checks such a function once, not once for each path that
 * leads to a call of it. Inline they are a quarter of a second of every load.
 */
__noinline int mark(__u64 first, __u64 count)
{
    struct mark_context context = {first, first + count, first >> 6};
    __u64 words;

    if (count == 0)
        return 0;
    words = ((context.end - 1) >> 6) - (context.first >> 6) + 1;
    mark_step(0, &context);
    if (words == 2)
        mark_step(1, &context);
    else if (words > 2)
        bpf_loop(words < LOOPS_MAX ? words : LOOPS_MAX, mark_step, &context, 0);
    if (words > LOOPS_MAX) {
        context.word += LOOPS_MAX;
        bpf_loop(words - LOOPS_MAX, mark_step, &context, 0);
    }
    return 0;
}

/* Sectors, clipped to the disk, as blocks. */
static __always_inline struct extent blocks_of(__u64 sector, __u64 sectors)
{
    struct extent extent = {0, 0};
    __u64 end;

    if (sectors == 0)
        return extent;
    extent.first = sector >> HERALD_EBPF_BLOCK_SECTORS_SHIFT;
    end = ((sector + sectors - 1) >> HERALD_EBPF_BLOCK_SECTORS_SHIFT) + 1;
    if (end > disk_blocks || end < extent.first) {
        count_event(HERALD_EBPF_BEYOND_END);
        end = disk_blocks;
        if (extent.first >= end) {
            extent.first = 0;
            return extent;
        }
    }
    extent.count = end - extent.first;
    return extent;
}

struct discard_context {
    struct bio *bio;
    __u64 first;
    __u64 end;
};

static long discard_step(__u32 index, struct discard_context *context)
{
    struct bio *bio = context->bio;
    struct extent extent;

    if (!bio)
        return 1;
    extent = blocks_of((__u64)BPF_CORE_READ(bio, bi_iter.bi_sector),
                       BPF_CORE_READ(bio, bi_iter.bi_size) >> 9);
    mark(extent.first, extent.count);
    if (extent.count) {
        if (extent.first < context->first)
            context->first = extent.first;
        if (extent.first + extent.count > context->end)
            context->end = extent.first + extent.count;
    }
    context->bio = BPF_CORE_READ(bio, bi_next);
    return 0;
}

static __always_inline bool ours(struct request *request)
{
    struct gendisk *disk = request->q->disk;

    if (!disk || disk->part0->bd_dev != disk_dev)
        return false;
    if (disk->diskseq != disk_seq) {
        count_event(HERALD_EBPF_FOREIGN);
        return false;
    }
    return true;
}

/* What names a request in the open table. */
static __always_inline __u64 name_of(struct request *request)
{
    struct request_queue *queue = request->q;
    __u64 name = (__u64)request;

    /*
     * The verifier lets no arithmetic be done with a pointer except taking the distance of two,
     * which names a request of this queue just as well. In assembly, so that the compiler does
     * not make something else of it.
     */
    asm volatile("%0 -= %1" : "+r"(name) : "r"(queue));
    return name;
}

/* The device that the kernel counts the request in flight at, besides the disk. */
static __always_inline __u64 part_of(struct request *request)
{
    struct block_device *part = request->part;

    return part ? part->bd_dev : 0;
}

static __always_inline struct herald_open_write_abi *slot_at(__u32 index)
{
    index &= open_slots - 1;
    return bpf_map_lookup_elem(&open_writes, &index);
}

/* Index of the slot of the request of that name: HERALD_EBPF_PROBES_MAX slots may be its own. */
__noinline int slot_of(__u64 name, bool claim)
{
    /* Fibonacci hashing: requests are a constant distance apart in memory. */
    const __u32 index = (__u32)((name * 0x9e3779b97f4a7c15ull) >> 32) & (open_slots - 1);

    for (__u32 i = 0; i < HERALD_EBPF_PROBES_MAX; ++i) {
        struct herald_open_write_abi *slot = slot_at(index + i);
        __u64 owner;

        if (!slot)
            return NO_SLOT;
        owner = *(volatile __u64 *)&slot->request;
        if (owner == name)
            return (index + i) & (open_slots - 1);
        /* Never claimed, so nothing of this name lies beyond. A released one is passed over. */
        if (owner == 0)
            break;
    }
    for (__u32 i = 0; claim && i < HERALD_EBPF_PROBES_MAX; ++i) {
        struct herald_open_write_abi *slot = slot_at(index + i);
        __u64 owner;

        if (!slot)
            return NO_SLOT;
        owner = *(volatile __u64 *)&slot->request;
        if (owner != 0 && owner != HERALD_EBPF_REQUEST_RELEASED)
            continue;
        if (__sync_val_compare_and_swap(&slot->request, owner, name) == owner)
            return (index + i) & (open_slots - 1);
    }
    return NO_SLOT;
}

static __always_inline struct extent extent_of(__u64 word)
{
    struct extent extent = {word & HERALD_EBPF_EXTENT_MASK,
                            (word >> HERALD_EBPF_EXTENT_BITS) & HERALD_EBPF_EXTENT_MASK};

    if (extent.count == HERALD_EBPF_EXTENT_MASK)
        extent.count = disk_blocks - extent.first;
    return extent;
}

static __always_inline __u64 word_of(__u64 issue, struct extent extent)
{
    /* All of the largest disk is one block more than fits: the largest count is "to the end". */
    if (extent.count > HERALD_EBPF_EXTENT_MASK)
        extent.count = HERALD_EBPF_EXTENT_MASK;
    return issue << HERALD_EBPF_EXTENT_ISSUE_SHIFT | extent.count << HERALD_EBPF_EXTENT_BITS |
           extent.first;
}

/*
 * Puts the request's extent in its slot. What was there goes on being marked: its completion was
 * not seen, or the slot was another's a moment ago.
 */
static __always_inline bool open_slot(struct herald_open_write_abi *slot, __u64 name,
                                      struct extent extent, __u64 part)
{
    /* One request is with one processor at a time: only its own slot's number is followed. */
    __u64 before = *(volatile __u64 *)&slot->extent;
    __u64 issue = (before >> HERALD_EBPF_EXTENT_ISSUE_SHIFT) + 1;
    struct extent open = extent_of(before);
    __u64 replaced;

    if (open.count) {
        count_event(HERALD_EBPF_REISSUED_OPEN);
        mark(open.first, open.count);
    }
    *(volatile __u64 *)&slot->part = part;
    /* The result is used, so that the ordered form of the exchange is emitted. */
    replaced = __sync_lock_test_and_set(&slot->extent, word_of(issue, extent));
    if (replaced != before) {
        open = extent_of(replaced);
        if (open.count)
            mark(open.first, open.count);
    }
    /*
     * User space that releases the slot says so in the extent before it takes the name away, and
     * takes that word back after: whoever opens it in between sees one of the two.
     */
    return (replaced & ((1ull << HERALD_EBPF_EXTENT_ISSUE_SHIFT) - 1)) !=
               HERALD_EBPF_EXTENT_RELEASING &&
           *(volatile __u64 *)&slot->request == name;
}

/* What the request covers. A discard of several bios is marked on the way, range by range. */
static __always_inline struct extent cover(struct request *request, __u32 op, __u64 bytes,
                                           bool *marked)
{
    struct extent extent = blocks_of(request->__sector, bytes >> 9);

    *marked = false;
    if (op == REQ_OP_DISCARD) {
        struct bio *bio = request->bio;

        /* More than one bio: they need not be neighbours, so each is taken by itself. */
        if (bio && bio->bi_next) {
            struct discard_context context = {bio, ~0ull, 0};

            bpf_loop(DISCARD_BIOS_MAX, discard_step, &context, 0);
            if (context.bio) {
                /* One range by the queue's own limit: all bios are neighbours. */
                if (BPF_CORE_READ(request, q, limits.max_discard_segments) <= 1)
                    return extent;
                count_event(HERALD_EBPF_LONG_DISCARD);
                /* The rest is not known: everything may have been discarded. */
                extent.first = 0;
                extent.count = disk_blocks;
                return extent;
            }
            extent.first = 0;
            extent.count = 0;
            if (context.end) {
                extent.first = context.first;
                extent.count = context.end - context.first;
            }
            *marked = true;
        }
    }
    return extent;
}

SEC("tp_btf/block_rq_issue")
int BPF_PROG(herald_issue, struct request *request)
{
    __u32 op = request->cmd_flags & OP_MASK;
    struct herald_open_write_abi *slot;
    struct extent extent;
    __u64 name;
    bool marked;
    int index;

    /* Whatever changes the disk has an odd code, known to us or not. */
    if (!(op & 1) || !ours(request))
        return 0;
    if (op == REQ_OP_DRV_OUT) {
        count_event(HERALD_EBPF_PASSTHROUGH);
        return 0;
    }
    count_event(HERALD_EBPF_SUBMISSIONS);
    if (fault_no_submission)
        return 0;

    extent = cover(request, op, request->__data_len, &marked);
    if (extent.count == 0)
        return 0;
    if (!fault_no_open) {
        name = name_of(request);
        index = slot_of(name, true);
        slot = index == NO_SLOT ? 0 : slot_at(index);
        if (!slot || !open_slot(slot, name, extent, part_of(request)))
            count_event(HERALD_EBPF_TABLE_FULL);
    }
    /*
     * After the open table also for a discard whose ranges were marked on the way: a drainer that
     * took those marks reads before the write is open, and this is the mark that follows.
     */
    if (marked)
        cover(request, op, request->__data_len, &marked);
    else
        mark(extent.first, extent.count);
    return 0;
}

SEC("tp_btf/block_rq_complete")
int BPF_PROG(herald_complete, struct request *request, int error, unsigned int bytes)
{
    __u32 op = request->cmd_flags & OP_MASK;
    struct herald_open_write_abi *slot;
    struct extent extent;
    bool marked;
    int index;

    if (!(op & 1) || !ours(request))
        return 0;
    if (op == REQ_OP_DRV_OUT) {
        count_event(HERALD_EBPF_PASSTHROUGH);
        return 0;
    }
    if (fault_drop_completions_percent &&
        bpf_get_prandom_u32() % 100 < fault_drop_completions_percent)
        return 0;
    count_event(HERALD_EBPF_COMPLETIONS);

    /* What is left of the request, also when only a part completed or it failed. */
    extent = cover(request, op, request->__data_len, &marked);
    if (!marked)
        mark(extent.first, extent.count);
    /* A part: the rest is still under way. */
    if (bytes < request->__data_len)
        return 0;
    index = slot_of(name_of(request), false);
    slot = index == NO_SLOT ? 0 : slot_at(index);
    if (slot) {
        __u64 before = *(volatile __u64 *)&slot->extent;
        struct extent open = extent_of(before);

        /* After parts completed the request has shrunk; what it was issued with is here. */
        if (open.count && (open.first != extent.first || open.count != extent.count))
            mark(open.first, open.count);
        if (open.count) {
            before = __sync_lock_test_and_set(
                &slot->extent, before >> HERALD_EBPF_EXTENT_ISSUE_SHIFT
                                   << HERALD_EBPF_EXTENT_ISSUE_SHIFT);
            if (before == ~0ull)
                asm volatile("" ::: "memory");
        }
    }
    return 0;
}
