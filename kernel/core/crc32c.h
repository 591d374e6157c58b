/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* CRC-32C (Castagnoli), reflected, initial value and final complement as in RFC 3720, appendix B.4.
 */
#ifndef HERALD_CORE_CRC32C_H
#define HERALD_CORE_CRC32C_H

#include "types.h"

/* `crc` is 0 to begin with, or the value of what comes before. */
u32 cbt_crc32c(u32 crc, const void* data, size_t bytes);

#endif
