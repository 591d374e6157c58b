/* SPDX-License-Identifier: (GPL-2.0-only WITH Linux-syscall-note) OR MIT */
/*
 * What the BPF programs of kernel/ebpf_tracker and the processes of user/tracker share: the
 * contents of the pinned maps of one disk. BPF programs have the fixed-width types from vmlinux.h.
 * A change of any layout here needs a new HERALD_EBPF_LAYOUT: pins of another layout are a gap.
 * Layout: docs/internals/ebpf_tracker.md
 */
#ifndef HERALD_ABI_EBPF_TRACKER_H
#define HERALD_ABI_EBPF_TRACKER_H

#ifndef __VMLINUX_H__
#include <linux/types.h>
#endif

#define HERALD_EBPF_LAYOUT 3u

/* log2 of HERALD_BLOCK_BYTES / HERALD_SECTOR_BYTES: one bit for 128 sectors. */
#define HERALD_EBPF_BLOCK_SECTORS_SHIFT 7

/*
 * One slot of the table of open writes. `request` names the kernel's request (its distance in
 * memory from its queue) and stays once claimed, as a disk's requests are a fixed pool, until user
 * space releases it (HERALD_EBPF_REQUEST_RELEASED; never 0 again, at which a search ends); `extent`
 * is
 *   bits 60..63  a number that changes each time the request is issued
 *   bits 30..59  blocks, 0 when the write is closed; all ones: to the end of the disk
 *   bits  0..29  first block; of a closed write all ones while user space releases the slot, else 0
 * so that opening, closing and beginning a release are one atomic step each. `part` is the device
 * that the write was submitted to, the disk or one of its partitions, as the kernel keeps a dev_t;
 * 0 when not known. It is written before the extent: who reads the same extent before and after it
 * has that write's, or that of the next issue, before whose extent the write has ended.
 */
struct herald_open_write_abi {
    __u64 request;
    __u64 extent;
    __u64 part;
};

#define HERALD_EBPF_EXTENT_BITS 30
#define HERALD_EBPF_EXTENT_MASK ((1ull << HERALD_EBPF_EXTENT_BITS) - 1)
#define HERALD_EBPF_EXTENT_ISSUE_SHIFT 60
#define HERALD_EBPF_EXTENT_RELEASING HERALD_EBPF_EXTENT_MASK
#define HERALD_EBPF_REQUEST_RELEASED 1ull

/* Of a dev_t as the kernel keeps it; user space's is laid out otherwise. */
#define HERALD_EBPF_MINOR_BITS 20

/* Slots looked at for one request before the table counts as full. */
#define HERALD_EBPF_PROBES_MAX 32

/* Indices of the counter map (one value for each processor). */
enum herald_ebpf_counter {
    HERALD_EBPF_SUBMISSIONS = 0,
    HERALD_EBPF_COMPLETIONS = 1,
    /* A request was issued while its previous write was open: that completion was not seen. */
    HERALD_EBPF_REISSUED_OPEN = 2,
    /*
     * A write found no slot, or user space released it meanwhile: if its completion is skipped too,
     * nothing remembers it.
     */
    HERALD_EBPF_TABLE_FULL = 3,
    /*
     * Events of passthrough commands that may have written, where is not known: issued and
     * completed, as a compare that the first asks for may read before the command does its work.
     */
    HERALD_EBPF_PASSTHROUGH = 4,
    /* Another disk under the same device number. */
    HERALD_EBPF_FOREIGN = 5,
    /* A write beyond the end that the maps were made for: the disk grew. */
    HERALD_EBPF_BEYOND_END = 6,
    /* A discard of more ranges than are walked: the whole disk was marked. */
    HERALD_EBPF_LONG_DISCARD = 7,
    HERALD_EBPF_COUNTERS = 8,
};

#endif
