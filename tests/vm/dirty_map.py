# SPDX-License-Identifier: Apache-2.0
"""What a meta device says: the recovery rule of docs/formats/dirty_map.md, read from the document and not
from the driver, so that each can be held against the other."""
import dataclasses
import functools
import struct

BLOCK, HEADER = 4096, 64
SECTOR, BLOCK_SECTORS, REGION_SECTORS, WORDS = 512, 128, 8192, 504
MAGIC = 0x544d4243
SUPERBLOCK, COOKIE, ACTIVITY, BITMAP = 1, 2, 3, 4
WATCH_START, WATCH_END = 256, 128  # sectors
NEW, ACTIVE, CLEAN, DETACHED = 1, 2, 3, 4
WATCH_OPEN, GIVEN_UP, AWAY = 1, 2, 4
# Causes of include/herald/abi/cbt.h, as `dmsetup status` has them.
CAUSES = {0: "-", 6: "no-meta", 7: "meta-new", 8: "meta-unreadable", 9: "meta-write-failed", 10: "meta-slow",
          11: "meta-full", 12: "changed-untracked", 13: "watch-open", 14: "watch-unreadable", 15: "not-detached",
          23: "detached", 24: "persistence-lost"}


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82f63b78 if byte & 1 else 0)
        table.append(byte)
    return table


CRC = _crc_table()


@functools.lru_cache(maxsize=4096)
def _parse(block: bytes) -> tuple[int, int, int, bytes] | None:
    """Kind, sequence, index, tracking; nothing when the block is not whole."""
    magic, crc, version, kind = struct.unpack_from("<IIHH", block)
    if magic != MAGIC or version != 1:
        return None
    found = 0xffffffff
    for byte in block[8:]:
        found = CRC[(found ^ byte) & 255] ^ found >> 8
    if found ^ 0xffffffff != crc:
        return None
    sequence, index = struct.unpack_from("<QQ", block, 16)
    return kind, sequence, index, block[32:48]


def _newest(meta: bytes, pair: int, kind: int, index=0, tracking: bytes | None = None) -> bytes | None:
    """The body that counts."""
    best, body = 0, None
    for number in (2 * pair, 2 * pair + 1):
        block = meta[number * BLOCK:(number + 1) * BLOCK]
        facts = _parse(block)
        if facts and facts[0] == kind and facts[2] == index and tracking in (None, facts[3]) and facts[1] > best:
            best, body = facts[1], block
    return body


@functools.lru_cache(maxsize=256)
def digest(content: bytes) -> int:
    value = 0
    for word, in struct.iter_unpack("<Q", content):
        value = (value ^ word) * 0x9e3779b97f4a7c15 & 0xffffffffffffffff
        value ^= value >> 32
    return value


@dataclasses.dataclass
class Recovered:
    gap: str
    dirty: set[int]         # blocks
    hot: set[int]           # regions
    flags: int


def blocks_of(sectors: int) -> int:
    return (sectors + BLOCK_SECTORS - 1) // BLOCK_SECTORS


def meta_bytes(sectors: int) -> int:
    regions = (sectors + REGION_SECTORS - 1) // REGION_SECTORS
    return 2 * (4 + (regions + WORDS - 1) // WORDS) * BLOCK


def recover(meta: bytes, sectors: int, read) -> Recovered:
    """`sectors`: of the disk as it is; read(first, count): its content."""
    superblock = _newest(meta, 0, SUPERBLOCK)
    if superblock is None:
        return Recovered("meta-unreadable", set(), set(), 0)
    before, bitmaps, _, start, end, _, _, state, flags, gap = struct.unpack_from("<QQQQQIIIII", superblock, HEADER)
    tracking = superblock[32:48]
    gap = CAUSES[gap]
    if gap == "-":
        gap = _judge(before, sectors, state, flags, start, end, read)
    dirty: set[int] = set()
    hot: set[int] = set()
    log = _newest(meta, 2, ACTIVITY, 0, tracking)
    if log is not None:
        count, = struct.unpack_from("<I", log, HEADER)
        hot = set(struct.unpack_from(f"<{count}I", log, HEADER + 4))
    for region in hot:
        dirty.update(range(region * 64, region * 64 + 64))
    whole = log is not None
    for index in range(bitmaps):
        block = _newest(meta, 4 + index, BITMAP, index, tracking)
        whole = whole and block is not None
        for number, word in enumerate(struct.unpack_from(f"<{WORDS}Q", block, HEADER) if block else ()):
            first = (index * WORDS + number) * 64
            dirty.update(first + bit for bit in range(64) if word >> bit & 1) if word else None
    if gap == "-" and not whole:
        gap = "meta-unreadable"
    if before < sectors:
        dirty.update(range(before // BLOCK_SECTORS, blocks_of(sectors)))
    return Recovered(gap, {block for block in dirty if block < blocks_of(sectors)}, hot, flags)


def _judge(before: int, sectors: int, state: int, flags: int, start: int, end: int, read) -> str:
    if state == NEW:
        return "meta-new"
    if flags & GIVEN_UP:
        return "persistence-lost"
    if state == DETACHED:
        return "detached"
    if flags & AWAY:
        return "not-detached"
    if flags & WATCH_OPEN:
        return "watch-open"
    if before > sectors:
        return "changed-untracked"
    if digest(read(0, WATCH_START)) != start or digest(read(before - WATCH_END, WATCH_END)) != end:
        return "changed-untracked"
    return "-"
