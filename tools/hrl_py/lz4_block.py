# SPDX-License-Identifier: Apache-2.0
"""Decompression of one LZ4 block (the raw block format, no frame), after lz4's format description.

Promise: returns exactly raw_bytes bytes or raises Lz4Error; never holds more than raw_bytes, and
works in time linear in them.
"""


# At the end, where a decompressor copies more at a time than there is: the last bytes are literals,
# and no match begins so near to the end.
LAST_LITERALS, MATCH_MARGIN = 5, 12


class Lz4Error(Exception):
    pass


class ZeroOffset(Lz4Error):
    """Not valid, but taken by the LZ4 library, whose output is then undefined."""


def _length(data, at, nibble):
    """A length whose first 15 are in the token: (length, where to go on)."""
    if nibble < 15:
        return nibble, at
    while True:
        if at >= len(data):
            raise Lz4Error("a length is cut")
        nibble += data[at]
        at += 1
        if data[at - 1] != 255:
            return nibble, at


def decompress(data, raw_bytes):
    """The raw bytes of the block `data`, which must be exactly raw_bytes long.

    The last sequence ends after its literals: a block that ends behind a match is refused, as is a
    match whose offset is zero or reaches before the beginning, that begins less than 12 bytes before
    the end, or ends less than 5 bytes before it.
    """
    out = bytearray()
    at = 0
    while True:
        if at >= len(data):
            raise Lz4Error("the block ends without a last sequence of literals")
        token = data[at]
        literals, at = _length(data, at + 1, token >> 4)
        if at + literals > len(data) or len(out) + literals > raw_bytes:
            raise Lz4Error("literals reach beyond the end")
        out += data[at:at + literals]
        at += literals
        if at == len(data):
            break
        if at + 2 > len(data):
            raise Lz4Error("an offset is cut")
        offset = data[at] | data[at + 1] << 8
        length, at = _length(data, at + 2, token & 15)
        length += 4
        if offset == 0:
            raise ZeroOffset("a match with offset zero")
        if offset > len(out) or len(out) + length > raw_bytes:
            raise Lz4Error("a match reaches outside the block")
        if len(out) > raw_bytes - MATCH_MARGIN or len(out) + length > raw_bytes - LAST_LITERALS:
            raise Lz4Error("a match too near to the end")
        start = len(out) - offset
        part = out[start:start + length]
        if len(part) < length:  # it repeats itself
            part = (part * (length // offset + 1))[:length]
        out += part
    if len(out) != raw_bytes:
        raise Lz4Error(f"{len(out)} bytes instead of {raw_bytes}")
    return bytes(out)
