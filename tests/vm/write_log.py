# SPDX-License-Identifier: Apache-2.0
"""Replays the log of dm-log-writes, the kernel's own record of writes as the disk below completed them
(its format: drivers/md/dm-log-writes.c of the kernel, and Documentation/admin-guide/device-mapper/log-writes.rst).

Promise: an entry that is not sane raises. A mark is written at once, while what was not flushed
waits for a flush: so a mark stands for a moment only where a flush came before it.
"""
import dataclasses
import pathlib
import struct

MAGIC, VERSION = 0x6A736677736872, 1
SUPER = struct.Struct("<QQQI")   # magic, version, entries, bytes of a sector
ENTRY = struct.Struct("<QQQQ")   # sector, sectors, flags, bytes of inline data
FLUSH, FUA, DISCARD, MARK, METADATA = 1, 2, 4, 8, 16


class BadLog(AssertionError):
    pass


@dataclasses.dataclass
class Entry:
    sector: int
    sectors: int
    flags: int
    name: str     # of a mark
    data: bytes


def entries(log: pathlib.Path):
    """In the order in which they are in the log; yields the size of a sector first."""
    with open(log, "rb") as file:
        magic, version, count, sector_bytes = SUPER.unpack(file.read(SUPER.size))
        if magic != MAGIC or version != VERSION or sector_bytes not in (512, 4096):
            raise BadLog(f"{log}: magic {magic:x}, version {version}, sectors of {sector_bytes} bytes")
        yield sector_bytes
        file.seek(sector_bytes)
        for number in range(count):
            head = file.read(sector_bytes)
            sector, sectors, flags, inline = ENTRY.unpack_from(head)
            if flags >= 2 * METADATA or inline > sector_bytes - ENTRY.size or inline and not flags & MARK:
                raise BadLog(f"{log}: entry {number}: flags {flags:x}, {inline} bytes")
            name = head[ENTRY.size:ENTRY.size + inline].rstrip(b"\0").decode()
            data = b"" if flags & DISCARD else file.read(sectors * sector_bytes)
            yield Entry(sector, sectors, flags, name, data)


def images_at_marks(log: pathlib.Path, size: int):
    """For each mark its name, the image of a disk of zeroes at it, what FUA writes left, and the writes so far.

    The target logs a FUA write when it completes, and others only with the next flush, the earlier ones that
    it overwrote too: replayed, these win. So where a FUA write has been since the last mark, the disk holds
    what the image has or what the last such write wrote: {sector: that}. Where none has been the image is
    exact. A caller that knows better may correct the image before it asks for the next mark."""
    rows = entries(log)
    sector_bytes = next(rows)
    image, forced, writes = bytearray(size), {}, 0
    for entry in rows:
        if entry.flags & MARK:
            yield entry.name, image, forced, writes
            forced = {}
        elif entry.data:
            place = entry.sector * sector_bytes
            if place + len(entry.data) > size:
                raise BadLog(f"{log}: a write at {place} of {size}")
            image[place:place + len(entry.data)] = entry.data
            if entry.flags & FUA:
                for at in range(0, len(entry.data), sector_bytes):
                    forced[entry.sector + at // sector_bytes] = entry.data[at:at + sector_bytes]
            writes += 1


def differences(image: bytes, other: bytes, forced: dict[int, bytes], sector_bytes=512) -> tuple[list[int], int]:
    """Sectors of `other` that no order of the log explains, and how many only a FUA write does."""
    wrong, explained = [], 0
    for at in range(0, len(image), sector_bytes):
        theirs = other[at:at + sector_bytes]
        if image[at:at + sector_bytes] == theirs:
            continue
        if forced.get(at // sector_bytes) == theirs:
            explained += 1
        else:
            wrong.append(at // sector_bytes)
    return wrong, explained
