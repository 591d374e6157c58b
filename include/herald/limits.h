/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Every bound that more than one part relies on, with the reason for its value.
 * Plain C so that kernel-side code can read it too. Units are in the names.
 */
#ifndef HERALD_LIMITS_H
#define HERALD_LIMITS_H

/* Logical sector: the smallest unit of any offset or length in a stream. */
#define HERALD_SECTOR_BYTES 512u

/* One bit of a dirty map, one chunk of a scan, one digest. 1 TiB costs 2 MiB of map. */
#define HERALD_BLOCK_BYTES 65536u

/* Largest disk: 64 TiB keeps each bitmap at 128 MiB and every byte offset far from overflow. */
#define HERALD_DISK_BYTES_MAX (64ull << 40)

/* Of each of a disk's three bitmaps a replicator maps this much at a time (all of it up to 4 TiB):
   with HERALD_REPLICATOR_BYTES_MAX and the rest of the process under 256 MiB, whatever the disk's
   size. The bitmaps themselves, 2 MiB for each TiB, are the kernel's memory. */
#define HERALD_BITMAP_MAPPED_BYTES_MAX (8u << 20)

/* Payload of one record; larger writes are cut into several records. */
#define HERALD_RECORD_DATA_BYTES_MAX (1u << 20)

/* Positions of a stream: one more is still a number, signed too, in whatever reads it. */
#define HERALD_POSITION_MAX ((1ull << 63) - 1)

/* Uncompressed record bytes of one block of a segment in transit. */
#define HERALD_HRL_BLOCK_BYTES_MAX (256u << 10)
/* A reader refuses a block that claims more than this: one largest record and a block's worth. */
#define HERALD_HRL_BLOCK_BYTES_LIMIT (2u << 20)
/* Blocks of one segment: an index of at most 8 MiB in the memory of whoever opens it. */
#define HERALD_HRL_BLOCKS_MAX (1u << 17)
/* Sections of optional features a reader walks over: no more than the index may have. */
#define HERALD_HRL_SECTIONS_MAX 16u
#define HERALD_HRL_SECTIONS_BYTES_MAX (8u << 20)

/* Metadata block of a Hyper-V Replica Log; 4096 is usual. Searching a broken log may read one for
   each sector of it, so this bounds what a hostile log costs. */
#define HERALD_HRL_V2_METADATA_BYTES_MAX (64u << 10)
/* Metadata blocks of one such log: 64 MiB in the memory of whoever opens it; some 2 TiB of data. */
#define HERALD_HRL_V2_BLOCKS_MAX (1u << 22)

/* What comparing two journals remembers of each at a time, in units of 8 bytes: 64 MiB. */
#define HERALD_HRL_EFFECTS_COST_MAX (8ull << 20)

/* A segment is closed when its blocks hold this much, or when its first record is this old. */
#define HERALD_SEGMENT_BYTES_DEFAULT (8u << 20)
#define HERALD_SEGMENT_AGE_MS_DEFAULT 1000u
/* What a server accepts as one body: a full segment, its last record and its framing. */
#define HERALD_SEGMENT_BYTES_MAX (16u << 20)
/* Records of one segment: 16 MiB of the smallest records. */
#define HERALD_SEGMENT_RECORDS_MAX (1u << 19)

/* Unsent and unacknowledged segments a replicator holds per disk. */
#define HERALD_UNSENT_BYTES_MAX (64u << 20)
/* What a replicator remembers of one emitted block until it is acknowledged, counted in the bound
   above: blocks of zeroes cost hardly anything in a segment. */
#define HERALD_EMITTED_BLOCK_BYTES 96u
/* Segments of one disk sent and not acknowledged: their ids are remembered beside the dirty map.
   Several windows, so that a server's answer never finds an empty queue; 3 KiB. */
#define HERALD_SENT_SEGMENTS_MAX 64u
/* Segments a server accepts ahead of the head of a stream. */
#define HERALD_WINDOW_SEGMENTS 8u
/* Uploads a replicator has under way per disk. */
#define HERALD_UPLOADS_PER_DISK 4u

/* Freeze: after this the file systems thaw and the point is refused. */
#define HERALD_FREEZE_DEADLINE_MS 10000u

/* HTTP: what one request may be. */
#define HERALD_HTTP_HEADER_BYTES_MAX 16384u
#define HERALD_HTTP_HEADER_SECONDS_MAX 10u
#define HERALD_HTTP_BODY_SECONDS_MAX 60u
#define HERALD_HTTP_IDLE_SECONDS_MAX 60u
#define HERALD_HTTP_CONNECTIONS_MAX 512u
#define HERALD_HTTP_CONNECTIONS_PER_ADDRESS_MAX 128u
/* Request bodies in memory at once, over all connections: keeps the server under 256 MiB. */
#define HERALD_HTTP_BODIES_BYTES_MAX (96u << 20)

/* Markers (every record that carries no data) of one segment a server keeps until it commits. */
#define HERALD_SEGMENT_MARKERS_MAX 4096u
/* Ranges of chunks whose digests one segment changes; beyond it they all become unknown. */
#define HERALD_SEGMENT_DIGEST_RUNS_MAX 65536u
/* Chunks one segment may set to the digest of zeroes (16 GiB); longer runs become unknown. */
#define HERALD_SEGMENT_ZERO_CHUNKS_MAX (1u << 18)
/* Scans a stream may have open at once. */
#define HERALD_SCANS_OPEN_MAX 64u
/* Digests, and rows of a list, that one request may ask for. */
#define HERALD_DIGESTS_PER_REQUEST_MAX 65536u
#define HERALD_LIST_ROWS_MAX 10000u

/* Objects of one disk that no row refers to: what a crash can leave (a window, a few times over).
 * More means that the catalog is not this store's, and nothing is removed. */
#define HERALD_GARBAGE_PER_DISK_MAX 16u
/* Drain passes a replicator tells apart while they are under way: 100 s at ten passes a second. */
#define HERALD_BACKLOG_PASSES_MAX 1024u
/* Segments and read buffers over all disks of one replicator; with TLS, maps and code it stays
   under 256 MiB. A disk gets its share, at most HERALD_UNSENT_BYTES_MAX of segments. */
#define HERALD_REPLICATOR_BYTES_MAX (128u << 20)
/* Blocks one scan may leave as unreadable: 4 GiB of them, and some 10 MiB to remember them. */
#define HERALD_UNREADABLE_BLOCKS_MAX 65536u
/* Reads of a disk under way: past this a disk's own queue only gets longer. */
#define HERALD_READS_PER_DISK_MAX 16u

/* A tag's name and a disk's name: long enough for a sentence, short enough for a table. */
#define HERALD_NAME_BYTES_MAX 255u

/* Disks one replicator protects. */
#define HERALD_DISKS_MAX 64u

/* Filesystems frozen for one point: well under SCM_MAX_FD (253), one guardian thread for each. */
#define HERALD_FREEZE_FILESYSTEMS_MAX 64u
/* Replicators' freezes a guardian holds at the same time: one for each disk. */
#define HERALD_GUARDIAN_CONNECTIONS_MAX HERALD_DISKS_MAX
/* The longest freeze a guardian agrees to, whatever it is asked for. */
#define HERALD_GUARDIAN_DEADLINE_MS_MAX 60000u

/* Log messages held while filesystems are frozen: ten seconds of a noisy log. */
#define HERALD_LOG_GATE_MESSAGES_MAX 4096u

/* Control socket: a request is small; an answer may hold every disk or thousands of runs. */
#define HERALD_CONTROL_LINE_BYTES_MAX 65536u
#define HERALD_CONTROL_REPLY_BYTES_MAX (4u << 20)
#define HERALD_CONTROL_CONNECTIONS_MAX 16u

/* Requests one I/O engine has in flight; libaio takes them from a system-wide pool of 65536. */
#define HERALD_IO_DEPTH_MAX 1024u

#endif
