/* SPDX-License-Identifier: (GPL-2.0-only WITH Linux-syscall-note) OR MIT */
/*
 * What the device-mapper target `cbt` (dm_cbt.ko) and its readers share: the character device
 * /dev/herald-cbt, its ioctls, and the three areas of one disk that its owner maps read-only.
 *
 * Promise: every write to a tracked disk is visible to the reader as a slot, or its blocks are set
 * in the dirty map; a write that completed before another was submitted has the lower slot, and
 * the lower time_ns on all disks of the machine.
 * Callers: opening the device takes CAP_SYS_ADMIN. One file owns one disk and one disk has one
 * owner; the ioctls marked "owner" need that file, the others any file of the device.
 * Failure: -errno; what is refused for one of several disks says so in that disk's answer.
 *
 * Everything here is native-endian and fixed-width: nothing of it is written to a disk.
 * What a reader does, step by step: docs/internals/dm_cbt.md
 */
#ifndef HERALD_ABI_CBT_H
#define HERALD_ABI_CBT_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define HERALD_CBT_DEVICE "herald-cbt"
/* A change of any layout or meaning below that an older reader would get wrong. */
#define HERALD_CBT_ABI_VERSION 1u

/* ---- Limits. include/herald/limits.h has the same numbers where user space needs both; a test
 * ---- compares them, as kernel code may not include that file. */
#define HERALD_CBT_SECTOR_BYTES 512u
#define HERALD_CBT_SECTOR_SHIFT 9
/* One bit of the dirty map. */
#define HERALD_CBT_BLOCK_BYTES 65536u
#define HERALD_CBT_BLOCK_SECTORS_SHIFT 7
/* 64 TiB: each of the two bitmaps stays at 128 MiB. */
#define HERALD_CBT_DISK_SECTORS_MAX (1ull << 37)
/* Data of one slot; larger writes are cut into several. */
#define HERALD_CBT_WRITE_BYTES_MAX (1u << 20)
/* One discard, secure erase or write-zeroes: at most this many regions become hot at a time. */
#define HERALD_CBT_RANGE_SECTORS_MAX (64u << 11)
/* Powers of two. 32768 slots for 64 MiB of data: an average write of 2 KiB fills both at once. */
#define HERALD_CBT_SLOTS_MIN 16u
#define HERALD_CBT_SLOTS_DEFAULT 32768u
#define HERALD_CBT_SLOTS_MAX (1u << 22)
#define HERALD_CBT_PAYLOAD_BYTES_MIN (2u * HERALD_CBT_WRITE_BYTES_MAX)
#define HERALD_CBT_PAYLOAD_BYTES_DEFAULT (64u << 20)
#define HERALD_CBT_PAYLOAD_BYTES_MAX (1ull << 32)
/* Disks of one tag, hold or cut; disks of the module. */
#define HERALD_CBT_DISKS_PER_CALL_MAX 16u
#define HERALD_CBT_DISKS_MAX 256u
/* A hold releases by itself after this. */
#define HERALD_CBT_HOLD_MS_DEFAULT 300u
#define HERALD_CBT_HOLD_MS_MAX 2000u
/* A write that takes longer than this no longer keeps the reader waiting. */
#define HERALD_CBT_UNRESOLVED_MS_DEFAULT 5000u
/* The reader is woken by every 256th slot (of small rings, by half a ring), and this long after a
 * slot at the latest. */
#define HERALD_CBT_WAKE_SLOTS 256u
#define HERALD_CBT_WAKE_MS 10u
/* What the reader keeps on the meta device for itself. */
#define HERALD_CBT_COOKIE_BYTES_MAX 3072u
/* Bytes of one bitmap that one call copies. */
#define HERALD_CBT_MAP_BYTES_MAX (1u << 20)

/* ---- Names ---- */

/* What a new write is tracked by. Each mode keeps what the ones below it keep. */
enum herald_cbt_mode {
    HERALD_CBT_MODE_MAP = 1,     /* the dirty map only */
    HERALD_CBT_MODE_EXTENTS = 2, /* slots that say where, without the data */
    HERALD_CBT_MODE_ORDERED = 3, /* slots with the data */
};

/* Why a mode, a gap or a refusal. Values never change their meaning; new ones go to the end. */
enum herald_cbt_cause {
    HERALD_CBT_CAUSE_NONE = 0,
    HERALD_CBT_CAUSE_ACTIVATED = 1,    /* map: no reader has come yet */
    HERALD_CBT_CAUSE_PAYLOAD_FULL = 2, /* extents */
    HERALD_CBT_CAUSE_SLOTS_FULL = 3,   /* map */
    HERALD_CBT_CAUSE_NO_MEMORY = 4, /* map: the rings could not be allocated, or are over the cap */
    HERALD_CBT_CAUSE_CLIMBED = 5,   /* the rings have room again */
    HERALD_CBT_CAUSE_NO_META = 6,   /* gap: table line has `-`, nothing outlives an activation */
    HERALD_CBT_CAUSE_META_NEW = 7,  /* gap: first activation on this meta device */
    HERALD_CBT_CAUSE_META_UNREADABLE = 8, /* gap: no whole superblock, bitmap or activity log */
    HERALD_CBT_CAUSE_META_WRITE = 9,      /* gap: a meta write failed, persistence is given up */
    HERALD_CBT_CAUSE_META_SLOW = 10,      /* gap: a meta write missed its deadline, likewise */
    HERALD_CBT_CAUSE_META_FULL = 11,      /* gap: the disk outgrew the meta device, likewise */
    HERALD_CBT_CAUSE_CHANGED = 12,        /* gap: the watched ranges changed while nobody tracked */
    HERALD_CBT_CAUSE_WATCH_OPEN = 13,   /* gap: cannot be told, the stop came amid writes to them */
    HERALD_CBT_CAUSE_WATCH_READ = 14,   /* gap: the watched ranges cannot be read */
    HERALD_CBT_CAUSE_NOT_DETACHED = 15, /* gap: the table was removed, and not by unprotect */
    HERALD_CBT_CAUSE_NOT_ORDERED = 16,  /* tag: downgraded, the disk's mode is not ordered */
    HERALD_CBT_CAUSE_NO_SLOT = 17,      /* tag: refused, no slot is free */
    HERALD_CBT_CAUSE_NO_DISK = 18,      /* no such disk */
    HERALD_CBT_CAUSE_SUSPENDED = 19,    /* hold: refused or ended by a suspend */
    HERALD_CBT_CAUSE_EXPIRED = 20,      /* hold: its deadline passed */
    HERALD_CBT_CAUSE_HELD = 21,         /* hold: another one is in effect */
    HERALD_CBT_CAUSE_RESIZED = 22,
    HERALD_CBT_CAUSE_DETACHED = 23, /* gap: unprotect took the tracker out, and it is back */
    HERALD_CBT_CAUSE_PERSISTENCE_LOST =
        24,                         /* gap: an earlier activation had given persistence up */
    HERALD_CBT_CAUSE_SCAN_DUE = 25, /* tag: downgraded, a gap is open or blocks are to be scanned */
    HERALD_CBT_CAUSE_COUNT = 26,
};

enum herald_cbt_kind {
    HERALD_CBT_WRITE = 1,
    HERALD_CBT_WRITE_ZEROES = 2,
    HERALD_CBT_DISCARD = 3, /* content undefined until written */
    HERALD_CBT_SECURE_ERASE = 4,
    HERALD_CBT_TAG = 5,    /* id: the caller's; argument: its flags */
    HERALD_CBT_RESIZE = 6, /* sector: sectors now; argument: sectors before */
    HERALD_CBT_REREAD = 7, /* content not known: read the range */
    HERALD_CBT_MODE = 8,   /* sectors: mode before; payload_bytes: 0; argument: mode from here on */
    HERALD_CBT_ACTIVATION = 9, /* id: of the tracking; argument: number of the activation */
};

enum herald_cbt_state {
    HERALD_CBT_RESERVED = 1,   /* submitted, not completed: the reader stops before it */
    HERALD_CBT_COMMITTED = 2,  /* completed */
    HERALD_CBT_ABORTED = 3,    /* failed: content not known, read the range */
    HERALD_CBT_UNRESOLVED = 4, /* hung: skip it; its blocks are in a generation that needs a scan */
};

/* Flags of a slot. */
#define HERALD_CBT_SLOT_FUA 0x1u       /* was written through */
#define HERALD_CBT_SLOT_NO_EFFECT 0x2u /* the device refused this discard as unsupported */
#define HERALD_CBT_SLOT_INEXACT \
    0x4u /* nobounce: the payload is a copy of a buffer that may change */
#define HERALD_CBT_SLOT_DOWNGRADED 0x8u /* a tag in a mode that is not ordered */

/*
 * One slot. Those at [tail, head) belong to the reader, in this order; slot n is at index
 * n & (slots - 1). `state` is the last field that the kernel stores, with release: load it with
 * acquire, stop at RESERVED, and then read the rest.
 */
struct herald_cbt_slot_abi {
    __u64
        time_ns; /* unique and increasing over all disks of the machine; CLOCK_REALTIME or later */
    __u64 sector;
    /* Free-running: the data is at payload & (payload_bytes - 1) of the payload area, never
     * wrapped. */
    __u64 payload;
    __u32 sectors;
    /* Of a write: sectors * 512, or 0: the data is not here, read the range. */
    __u32 payload_bytes;
    __u32 state;
    __u16 kind;
    __u16 flags;
    __u64 argument;
    /* TAG, ACTIVATION: see there. Of all others the slot's number, native-endian, and zeroes: a
     * reader that looks where it should not notices. */
    __u8 id[16];
};

/* Features of the header page and of HERALD_CBT_INFO. */
#define HERALD_CBT_FEATURE_BOUNCE 0x1ull  /* what the disk gets is the ring's copy */
#define HERALD_CBT_FEATURE_META 0x2ull    /* the table names a meta device */
#define HERALD_CBT_FEATURE_PAYLOAD 0x4ull /* there is a payload ring: mode ordered is possible */

enum herald_cbt_persistence {
    HERALD_CBT_PERSISTENCE_NONE = 1,     /* no meta device */
    HERALD_CBT_PERSISTENCE_ACTIVE = 2,   /* a power cut now leads to a scan of dirty blocks only */
    HERALD_CBT_PERSISTENCE_GIVEN_UP = 3, /* to a digest compare; why: persistence_cause */
};

/* Flags of a generation. */
#define HERALD_CBT_GENERATION_EXISTS 0x1u
/* Its blocks are to be read and stored before its bits go: storing the slots does not cover them.
 */
#define HERALD_CBT_GENERATION_NEEDS_SCAN 0x2u
/* Acknowledged; a flush of the disk is under way before its bits go. */
#define HERALD_CBT_GENERATION_CLEARING 0x4u

/*
 * The header page. Fields before `head` never change while the file is open. The kernel stores the
 * others one by one, so two of them need not be of the same instant; ioctls that answer several do
 * so under the disk's lock.
 */
struct herald_cbt_header_abi {
    __u32 magic;
    __u32 version;
    __u32 header_bytes;
    __u32 slot_bytes;
    __u64 features;
    __u64 slots;
    __u64 payload_bytes;
    __u64 activation;  /* number of the activation, from the meta device */
    __u8 tracking[16]; /* id of the tracking: of the meta device, else random */
    __u8 reserved0[64];

    __u64 head; /* 128: load with acquire */
    __u64 tail; /* slots before it may be overwritten */
    __u64 payload_head;
    __u64 payload_tail;
    __u64 latch_slot; /* head when the mode last sank; without meaning in mode ordered */
    __u64 sectors;    /* of the disk */
    __u32 mode;
    __u32 mode_cause;
    __u32 events; /* changes with every change of mode, generation, gap, persistence or size */
    __u32 held;   /* a hold is in effect */

    __u64 mode_since_ns; /* 192 */
    __u64 sealed_generation;
    __u64 sealed_slot; /* stored must reach it before the sealed generation goes */
    __u32 sealed_flags;
    __u32 current_flags;
    __u64 current_generation;
    __u32 gap; /* cause; not NONE: the dirty map does not cover what happened before this activation
                */
    __u32 persistence;
    __u32 persistence_cause;
    __u32 reserved1;
    __u64 received;

    __u64 stored; /* 256 */
    __u64 writes;
    __u64 written_bytes;
    __u64 sank_to_extents;
    __u64 sank_to_map;
    __u64 climbed;
    __u64 aborted;
    __u64 unresolved;
    __u8 reserved2[3776];
};

#define HERALD_CBT_HEADER_MAGIC 0x52544243u /* "CBTR" */

/* Offsets for mmap (PROT_READ, MAP_SHARED) of the owner's file, each area whole or from its start.
 */
#define HERALD_CBT_MMAP_HEADER 0ull
#define HERALD_CBT_MMAP_SLOTS (1ull << 32)
#define HERALD_CBT_MMAP_PAYLOAD (1ull << 40)

/* ---- ioctls. `size` is that of the structure; what is reserved, and unknown flags, must be 0.
 * ---- */

/* A disk, by the number of its dm device. */
struct herald_cbt_disk_abi {
    __u32 major;
    __u32 minor;
};

struct herald_cbt_info_abi {
    __u32 size;
    __u32 flags;
    __u32 version;
    __u32 disks;
    __u64 features;
    __u64 time_ns;      /* the driver's clock: every later slot has a greater time */
    __u64 memory_bytes; /* of rings and maps, over all disks */
    __u64 memory_bytes_max;
};

/* One row of HERALD_CBT_LIST. */
struct herald_cbt_row_abi {
    struct herald_cbt_disk_abi disk;
    struct herald_cbt_disk_abi origin;
    struct herald_cbt_disk_abi meta; /* 0:0 is none */
    __u64 sectors;
    __u32 mode;
    __u32 mode_cause;
    __u32 owned;
    __u32 suspended;
    __u32 gap;
    __u32 persistence;
    __u8 tracking[16];
};

struct herald_cbt_list_abi {
    __u32 size;
    __u32 flags;
    __u64 rows;     /* address of struct herald_cbt_row_abi[capacity] */
    __u32 capacity; /* at most HERALD_CBT_DISKS_MAX */
    __u32 count;    /* out: there are this many; rows beyond capacity are not written */
};

/*
 * The calling file becomes the owner. What the owner before it did not release is at [tail, head);
 * what was released and not stored is in a generation that needs a scan by then.
 * -EBUSY: the disk has an owner, or the file has a disk.
 */
struct herald_cbt_own_abi {
    __u32 size;
    __u32 flags;
    struct herald_cbt_disk_abi disk;
    __u64 slots;
    __u64 payload_bytes;
    __u64 tail;
    __u64 head;
    __u64 stored;
    __u64 sectors;
};

/* Owner. `drained` is what the reader has read, `events` the header's that it has looked at: poll()
 * answers POLLIN when the slot at `drained` is there and not reserved, POLLPRI when events differ.
 */
struct herald_cbt_release_abi {
    __u32 size;
    __u32 flags;
    __u64 released; /* slots before it may be overwritten; -ERANGE: not in [tail, first reserved] */
    __u64 drained;  /* in [released, head] */
    __u32 events;
    __u32 reserved;
};

/* The reader has compared digests, and what differed is stored: the gap is closed. */
#define HERALD_CBT_ACK_GAP_CLOSED 0x1u
/* `scanned` is the sealed generation's number and its blocks were read and are stored. */
#define HERALD_CBT_ACK_SCANNED 0x2u

/*
 * Owner. Neither position goes backwards. A position may pass a slot without payload, and an
 * aborted one, only when the range was read after the slot's commit and that is received (stored)
 * too; or after HERALD_CBT_MARK of the range.
 */
struct herald_cbt_ack_abi {
    __u32 size;
    __u32 flags;
    __u64 received;
    __u64 stored;
    __u64 scanned;
    /* out */
    __u64 sealed_generation;
    __u64 sealed_slot;
    __u32 sealed_flags;
    __u32 current_flags;
};

/* Answers for one disk of a call over several. */
enum herald_cbt_result {
    HERALD_CBT_LANDED = 1,
    HERALD_CBT_DOWNGRADED = 2, /* a tag that names no consistent moment of this disk; why: cause */
    HERALD_CBT_REFUSED = 3,    /* nothing happened; why: cause */
};

struct herald_cbt_answer_abi {
    struct herald_cbt_disk_abi disk; /* in */
    __u32 result;
    __u32 cause;
    __u64 slot; /* the tag's; of HERALD_CBT_CUT the head */
};

/*
 * A tag slot on each disk, all at the same time_ns, with all ring locks held. Where it landed, the
 * slots before it say all that was written, in order: the moment is what a power cut would leave,
 * unless one of those slots leaves a range to be read that the reader has not read since.
 */
struct herald_cbt_tag_abi {
    __u32 size;
    __u32 flags; /* HERALD_CBT_TAG_* */
    __u32 disks;
    __u32 reserved;
    __u8 id[16];
    __u64 time_ns; /* out */
    struct herald_cbt_answer_abi answers[HERALD_CBT_DISKS_PER_CALL_MAX];
};

/* All or nothing: where one disk would be downgraded or refused, all are refused. */
#define HERALD_CBT_TAG_ALL 0x1u
/* The tag belongs to a hold of this file; refused with EXPIRED where that is over. */
#define HERALD_CBT_TAG_HELD 0x2u

/*
 * New writes wait, until `RELEASE`, the deadline, the end of this file, or a suspend. When the call
 * returns the hold is in effect on each disk that landed.
 */
#define HERALD_CBT_HOLD_RELEASE 0x1u
struct herald_cbt_hold_abi {
    __u32 size;
    __u32 flags;
    __u32 disks;
    __u32 deadline_ms; /* 0: the default */
    struct herald_cbt_answer_abi answers[HERALD_CBT_DISKS_PER_CALL_MAX];
};

/* Seals the current generation, when none is sealed and it may be. -EAGAIN: not now. */
struct herald_cbt_seal_abi {
    __u32 size;
    __u32 flags;
    struct herald_cbt_disk_abi disk;
    /* out */
    __u64 sealed_generation;
    __u64 sealed_slot;
    __u32 sealed_flags;
    __u32 reserved;
};

enum herald_cbt_bitmap {
    HERALD_CBT_BITMAP_CURRENT = 1,
    HERALD_CBT_BITMAP_SEALED = 2,
    HERALD_CBT_BITMAP_BOTH = 3, /* the union: all that is dirty */
};

/* Copies bits: bit i % 8 of byte i / 8 is block first_block + i. The tail of the last byte is 0. */
struct herald_cbt_map_abi {
    __u32 size;
    __u32 flags;
    struct herald_cbt_disk_abi disk;
    __u32 which;
    __u32 reserved;
    __u64 first_block; /* a multiple of 64 */
    __u64 blocks; /* in: room in the buffer, at most 8 * HERALD_CBT_MAP_BYTES_MAX; out: copied */
    __u64 buffer; /* address; 0 with blocks = 0 asks for the fields below only */
    /* out */
    __u64 generation;
    __u64 dirty_blocks; /* set in the whole bitmap; counted by each call that starts at block 0 */
};

/* Marks a range dirty by hand: its current generation needs a scan. */
struct herald_cbt_mark_abi {
    __u32 size;
    __u32 flags;
    struct herald_cbt_disk_abi disk;
    __u64 sector;
    __u64 sectors; /* within the disk */
};

/* Reads the reader's cookie; WRITE (owner) makes it durable before the call returns. */
#define HERALD_CBT_COOKIE_WRITE 0x1u
struct herald_cbt_cookie_abi {
    __u32 size;
    __u32 flags;
    struct herald_cbt_disk_abi disk;
    __u32 bytes; /* in: of the buffer; out: of the cookie. At most HERALD_CBT_COOKIE_BYTES_MAX */
    __u32 reserved;
    __u64 buffer;
};

#define HERALD_CBT_CAPTURE_BUCKETS 16u
struct herald_cbt_stats_abi {
    __u32 size;
    __u32 flags;
    struct herald_cbt_disk_abi disk;
    /* out */
    __u64 writes;
    __u64 written_bytes;
    __u64 reads;
    __u64 flushes;
    __u64 ranges; /* discards, erases, write-zeroes */
    __u64 parked_overlap;
    __u64 parked_hold;
    __u64 parked_activity;
    __u64 again; /* REQ_NOWAIT refused */
    __u64 aborted;
    __u64 unresolved;
    __u64 mode_ns[3]; /* time in map, extents, ordered */
    __u64 sank[3];    /* times that the mode sank to it; the last is 0 */
    __u64 causes[32]; /* changes of mode, gaps and refusals by enum herald_cbt_cause */
    __u64 slots_used;
    __u64 slots_used_max;
    __u64 payload_used;
    __u64 payload_used_max;
    __u64 oldest_unstored_ns; /* age; 0: all is stored */
    __u64 in_flight;
    __u64 meta_writes;
    __u64 activity_hits;
    __u64 activity_misses;
    __u64 hot_regions;
    __u64 held_ns_max;
    __u64 tags;
    /* Time from a write's submission to its reservation's end: bucket n is below 2^(n + 8) ns. */
    __u64 capture[HERALD_CBT_CAPTURE_BUCKETS];
};

/*
 * A moment and every disk's head at or after it: a slot with a smaller time_ns than this is before
 * that disk's head, on every disk. So slots up to time_ns are a consistent cut of all of them.
 */
struct herald_cbt_cut_abi {
    __u32 size;
    __u32 flags;
    __u32 disks;
    __u32 reserved;
    __u64 time_ns; /* out */
    struct herald_cbt_answer_abi answers[HERALD_CBT_DISKS_PER_CALL_MAX];
};

/* The next removal of this disk is meant, and is no gap. UNDO takes that back. */
#define HERALD_CBT_DETACH_UNDO 0x1u
struct herald_cbt_detach_abi {
    __u32 size;
    __u32 flags;
    struct herald_cbt_disk_abi disk;
};

#define HERALD_CBT_IOCTL_TYPE 0xB7
#define HERALD_CBT_INFO _IOWR(HERALD_CBT_IOCTL_TYPE, 1, struct herald_cbt_info_abi)
#define HERALD_CBT_LIST _IOWR(HERALD_CBT_IOCTL_TYPE, 2, struct herald_cbt_list_abi)
#define HERALD_CBT_OWN _IOWR(HERALD_CBT_IOCTL_TYPE, 3, struct herald_cbt_own_abi)
#define HERALD_CBT_RELEASE _IOW(HERALD_CBT_IOCTL_TYPE, 4, struct herald_cbt_release_abi)
#define HERALD_CBT_ACK _IOWR(HERALD_CBT_IOCTL_TYPE, 5, struct herald_cbt_ack_abi)
#define HERALD_CBT_TAG_DISKS _IOWR(HERALD_CBT_IOCTL_TYPE, 6, struct herald_cbt_tag_abi)
#define HERALD_CBT_HOLD _IOWR(HERALD_CBT_IOCTL_TYPE, 7, struct herald_cbt_hold_abi)
#define HERALD_CBT_SEAL _IOWR(HERALD_CBT_IOCTL_TYPE, 8, struct herald_cbt_seal_abi)
#define HERALD_CBT_MAP _IOWR(HERALD_CBT_IOCTL_TYPE, 9, struct herald_cbt_map_abi)
#define HERALD_CBT_MARK _IOW(HERALD_CBT_IOCTL_TYPE, 10, struct herald_cbt_mark_abi)
#define HERALD_CBT_COOKIE _IOWR(HERALD_CBT_IOCTL_TYPE, 11, struct herald_cbt_cookie_abi)
#define HERALD_CBT_STATS _IOWR(HERALD_CBT_IOCTL_TYPE, 12, struct herald_cbt_stats_abi)
#define HERALD_CBT_CUT _IOWR(HERALD_CBT_IOCTL_TYPE, 13, struct herald_cbt_cut_abi)
#define HERALD_CBT_DETACH _IOW(HERALD_CBT_IOCTL_TYPE, 14, struct herald_cbt_detach_abi)

#endif
