# SPDX-License-Identifier: Apache-2.0
"""LZ4 blocks for both readers: well formed, nearly so, and hostile. As a file (tests/fuzz/corpus/lz4_framing):
the raw size in 4 bytes, little-endian, then the block."""
import struct

import lz4_block

RAW_BYTES_MAX = (1 << 20) + 40


def _length(value):
    """(what goes to the token, the bytes behind it)."""
    if value < 15:
        return value, b""
    return 15, b"\xff" * ((value - 15) // 255) + bytes([(value - 15) % 255])


def sequence(literals, offset=None, match=4):
    high, more = _length(len(literals))
    if offset is None:
        return bytes([high << 4]) + more + literals
    low, behind = _length(match - 4)
    return bytes([high << 4 | low]) + more + literals + struct.pack("<H", offset) + behind


def random_stream(draw):
    """(raw size, block): ends right, or a few bytes beside."""
    out, made = b"", 0
    for _ in range(draw.choice([0, 1, 1, 2, 3, 8, 40])):
        literals = draw.randbytes(draw.choice([0, 1, 4, 14, 15, 16, 270, draw.randrange(600)]))
        made += len(literals)
        offset = draw.choice([1, 2, 7, 8, made, made, draw.randrange(1, made + 2), made + 1, 65535])
        if draw.random() < 0.9:
            offset = max(1, min(offset, made))
        match = draw.choice([4, 5, 18, 19, 20, 274, draw.randrange(4, 2000)])
        out += sequence(literals, min(offset, 65535), match)
        made += match
    last = draw.randbytes(draw.choice([0, 3, 4, 5, 5, 6, 7, 8, 11, 12, 13, 14, 40]))
    out += sequence(last)
    made += len(last)
    if draw.random() < 0.3:
        out = bytearray(out)
        out[draw.randrange(len(out))] = draw.choice([0, 1, 15, 16, 0x4f, 0xf0, 0xff, draw.randrange(256)])
    if draw.random() < 0.1:
        out = out[:draw.randrange(len(out) + 1)]
    return max(1, made + draw.choice([0] * 12 + [1, -1, -4, 100])), bytes(out)


def hostile_streams():
    """Few bytes that ask for much, and both sides of each rule about the end."""
    for last in range(14):
        for literals in (1, 8, 12):
            raw = literals + 4 + last
            yield raw, sequence(b"x" * literals, 1) + sequence(b"y" * last)
            yield raw - 4, sequence(b"x" * (literals + last))
    # What the LZ4 library alone takes: a short match up to the very end, and up to its last literals.
    for last in range(6):
        yield 32 + last, sequence(b"fourteen bytes", 8, 18) + sequence(b"y" * last)
        yield 32, sequence(b"fourteen bytes"[last:], 8, 18) + sequence(b"y" * last)
        # The same bytes that would stand there if the rule were kept.
        tail = (b"\x08\x00" + bytes([last << 4]) + b"y" * last)[-5:]
        yield 32, sequence(b"nine byte" + tail, 8, 18 - last) + sequence(b"y" * last)
    yield RAW_BYTES_MAX, sequence(b"x", 1, RAW_BYTES_MAX - 6) + sequence(b"12345")
    yield RAW_BYTES_MAX, b"\xff" * 5000
    yield RAW_BYTES_MAX, b"\x1fx\x01\x00" + b"\xff" * 5000
    yield 1, b"\x10x"
    yield 40, b"\x00"


def many_far_matches(raw_bytes):
    """The shortest matches with the largest offset: what a copy of more than the match costs most for."""
    begin = bytes(range(256)) * 256
    count = (raw_bytes - len(begin) - 12) // 4
    block = sequence(begin, 65535) + sequence(b"", 65535) * (count - 1) + sequence(b"the end is 12")
    return len(begin) + 4 * count + 13, block


def cost_of(raw_bytes):
    """Bytes that the decompressor copies out of what it made, for the block above."""
    copied = 0

    class Counted(bytearray):
        def __getitem__(self, key):
            nonlocal copied
            found = super().__getitem__(key)
            copied += len(found) if isinstance(key, slice) else 1
            return found

    size, block = many_far_matches(raw_bytes)
    lz4_block.bytearray = Counted
    try:
        assert len(lz4_block.decompress(block, size)) == size
    finally:
        del lz4_block.bytearray
    return copied
