/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Integers, byte order and memory order for code that runs in kernels and in user space.
 * The compiler's atomics are used in both: on aligned words they are plain loads and stores with
 * the order asked for, and need no library.
 */
#ifndef HERALD_CORE_TYPES_H
#define HERALD_CORE_TYPES_H

#include <linux/types.h>

#ifndef __KERNEL__
#include <stdbool.h>
#include <stddef.h>
typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
#else
#include <linux/stddef.h>
#endif

#define CBT_STATIC_ASSERT(name, condition) \
    typedef char cbt_assert_##name[(condition) ? 1 : -1] __attribute__((unused))

#define cbt_store_release(to, value) __atomic_store_n((to), (value), __ATOMIC_RELEASE)
#define cbt_load_acquire(from) __atomic_load_n((from), __ATOMIC_ACQUIRE)
/* Untorn, without order: for words that others read as statistics. */
#define cbt_store(to, value) __atomic_store_n((to), (value), __ATOMIC_RELAXED)
#define cbt_load(from) __atomic_load_n((from), __ATOMIC_RELAXED)

/* Little-endian on disk. */
static inline u32 cbt_le32(u32 value) {
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    return __builtin_bswap32(value);
#else
    return value;
#endif
}

static inline u64 cbt_le64(u64 value) {
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    return __builtin_bswap64(value);
#else
    return value;
#endif
}

#endif
