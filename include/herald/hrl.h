/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libherald-hrl: reads .hrl version 3, and where it is asked to version 2 (Hyper-V Replica Logs),
 * from any program.
 * Promise: no record is handed out before its block was verified (of a log: as far as its checksums
 * reach, and data_is_unchecked tells where they do not); sizes and meanings here never
 * change, new fields only come behind the old ones (each struct says how long the caller's is).
 * Callers: one thread for each reader. Owns: what open gives, until close.
 * Failure: functions return HERALD_HRL_* below; herald_hrl_error() says what happened, to what.
 * No C++ exception leaves the library.
 * Layout of files: docs/formats/hrl.md, docs/formats/mshrl.md. Link with: pkg-config --libs
 * herald-hrl
 */
#ifndef HERALD_HRL_H
#define HERALD_HRL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * 1: the first. 2: herald_hrl_info from block_bytes on. 3: logs (herald_hrl_options from logs on,
 * herald_hrl_info from format on, herald_hrl_record from data_is_unchecked on). Later ones only
 * add.
 */
#define HERALD_HRL_API_VERSION 3

#define HERALD_HRL_API __attribute__((visibility("default")))

enum {
    HERALD_HRL_RECORD = 1,   /* next: there is a record */
    HERALD_HRL_OK = 0,       /* next: the end */
    HERALD_HRL_DAMAGED = -1, /* bytes are not what was written */
    HERALD_HRL_REFUSED =
        -2, /* a newer format, a missing key, a file that cannot be opened, a misuse */
    HERALD_HRL_TROUBLE = -3 /* reading failed; it may be tried again */
};

typedef struct herald_hrl_reader herald_hrl_reader;

struct herald_hrl_options {
    size_t size; /* sizeof(struct herald_hrl_options) */
    /* Of sealed files; each may be NULL. See docs/formats/keys.md. */
    const char* root_key;    /* a root key file */
    const char* keys;        /* a machine key file, or a folder of them */
    const char* secret_file; /* its first line is the passphrase or PIN */
    int without_key;         /* not 0: read all but the data of writes when there is no key */
    int sealed_only;         /* not 0: refuse files that are not sealed */
    int layers;              /* not 0: read files whose records do not stand as they happened */
    /* Since version 3. */
    int logs;        /* not 0: read Hyper-V Replica Logs, too; sealed_only refuses them */
    int entry_order; /* of a log in which nothing proves it: 1 oldest first, 2 newest first */
};

struct herald_hrl_info {
    size_t size; /* sizeof(struct herald_hrl_info) */
    uint8_t machine[16];
    uint8_t disk[16];
    uint8_t segment[16];
    uint8_t previous_segment[16];
    uint64_t epoch;
    uint64_t first_position;
    uint64_t last_position; /* 0 when the file is torn */
    uint64_t disk_bytes;
    uint64_t created_ns;
    int is_whole;
    int sealed_by; /* 0 nobody, 1 the server, 2 the source */
    /* Since version 2; 0 where the library is older. Meanings: docs/formats/hrl.md. */
    uint32_t block_bytes;
    uint32_t features_optional; /* also bits that this library does not know */
    uint8_t contents;           /* 0 segment, 1 delta layer, 2 image layer */
    uint8_t record_order;       /* 1 by position, 2 by block, then position */
    uint8_t granule_log2;       /* 0 in order 1 */
    uint8_t reserved[5];        /* 0 */
    uint8_t key_id[16];         /* of the machine key; 0: not sealed */
    /*
     * Since version 3: 2 a log, 3 a segment or layer. A log says only segment and previous_segment
     * (its ids), created_ns and whether it is whole; its records are numbered from 1.
     */
    int format;
};

struct herald_hrl_record {
    size_t size;        /* sizeof(struct herald_hrl_record) */
    uint8_t kind;       /* as in docs/formats/hrl.md: 1 write, 2 zeroes, ... */
    int data_is_sealed; /* a write without its key: data is NULL */
    uint64_t position;
    uint64_t offset;
    uint64_t length;
    uint64_t time_ns;
    const void* data; /* until the next call with this reader */
    size_t data_bytes;
    int data_is_unchecked; /* since version 3: of a log, whose entry has no checksum of its data */
};

/* `options` may be NULL. *reader is set unless memory is short, also on failure: for its error. */
HERALD_HRL_API int herald_hrl_open(const char* path, const struct herald_hrl_options* options,
                                   herald_hrl_reader** reader);
HERALD_HRL_API int herald_hrl_get_info(herald_hrl_reader* reader, struct herald_hrl_info* info);
HERALD_HRL_API int herald_hrl_next(herald_hrl_reader* reader, struct herald_hrl_record* record);
/* At the end: what a torn file lost; "" when nothing is. Until the next call with this reader. */
HERALD_HRL_API const char* herald_hrl_loss(herald_hrl_reader* reader);
HERALD_HRL_API const char* herald_hrl_error(herald_hrl_reader* reader);
HERALD_HRL_API void herald_hrl_close(herald_hrl_reader* reader); /* NULL is fine */

#ifdef __cplusplus
}
#endif

#endif
