// SPDX-License-Identifier: Apache-2.0
// Decompression of one LZ4 block (the raw block format) by the rules of the specification.
// Promise: true only when the block is valid and fills `raw` exactly; but a match with offset zero
// is not noticed, and then anything is in its place. Never reads or writes beyond the two.
// Callers: any thread.
// Layout: docs/formats/hrl.md
#pragma once

#include "user/base/bytes.h"

namespace herald::hrl {

// Of the bytes that a block decompresses to, the last ones are literals.
inline constexpr size_t kLz4LastLiterals = 5;

bool decompress_lz4(ByteView block, ByteSpan raw);

}  // namespace herald::hrl
