# SPDX-License-Identifier: Apache-2.0
"""Damages .hrl files in ways that reach deep rules: checksums, chains and tags are made right again."""
import struct

from sealing import hkdf_sha256
from xxh3 import xxh3_64

FOOTER, TAIL_TAG = 64, 24
POSITION_MAX = (1 << 63) - 1


def checksum(data):
    return struct.pack("<Q", xxh3_64(data))


def mend(data, chain_said=None):
    """Makes header, block, index, section and footer checksums and the chain right again, as far as
    the sizes in the file lead to them. chain_said: what index and footer say of it instead."""
    if len(data) < 256 + FOOTER:
        return bytes(data)
    data = bytearray(data)
    data[248:256] = checksum(data[:248])
    chain, at = data[248:256], 256
    while data[at:at + 4] == b"HBLK" and at + 48 <= len(data):
        stored = struct.unpack_from("<I", data, at + 24)[0]
        end = at + 40 + stored
        if end + 8 > len(data):
            break
        data[at + 32:at + 40] = chain
        chain = data[end:end + 8] = checksum(data[at:end])
        at = end + 8
    chain = chain_said or chain
    if data[at:at + 4] == b"HIDX" and at + 16 <= len(data):
        end = at + 16 + 64 * struct.unpack_from("<I", data, at + 4)[0]
        if end + 8 <= len(data):
            data[at + 8:at + 16] = chain
            data[end:end + 8] = checksum(data[at:end])
            if data[27] != 0 and len(data) - FOOTER - TAIL_TAG >= end + 8:
                data[-72:-64] = checksum(data[-88:-72])
    data[-24:-16] = chain
    data[-8:] = checksum(data[-FOOTER:-8])
    return bytes(data)


def seal_again(data, key, chain_said=None):
    """The same of a sealed file, with right tags of header and tail: what who has the key can do."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    if len(data) < 256 + FOOTER + TAIL_TAG or data[27] == 0:
        return mend(data, chain_said)
    data = bytearray(data)
    file_key = hkdf_sha256(key, bytes(data[64:80] + data[144:160]),
                           b"herald hrl 3 segment key" + bytes(data[32:64] + data[128:144]), 32)
    gcm = AESGCM(file_key)
    data[232:248] = gcm.encrypt(struct.pack("<IQ", 1, 0), b"", bytes(data[:232]))
    data = bytearray(mend(data, chain_said))
    index_at = struct.unpack_from("<Q", data, len(data) - FOOTER + 8)[0]
    covered = bytes(data[index_at:-FOOTER - TAIL_TAG] + data[-FOOTER:])
    data[-88:-72] = gcm.encrypt(struct.pack("<IQ", 3, 0), b"", covered)
    data[-72:-64] = checksum(data[-88:-72])
    return bytes(data)


def blocks(data):
    """Where each block begins."""
    at = 256
    while data[at:at + 4] == b"HBLK" and at + 48 <= len(data):
        yield at
        at += 48 + struct.unpack_from("<I", data, at + 24)[0]


def tables(data):
    """(where, count) of every table of record headers that is not compressed."""
    sealed = data[27] != 0
    for at in blocks(data):
        count, _, stored, codec = struct.unpack_from("<IIIB", data, at + 16)
        end = at + 40 + stored - (16 if sealed else 0)
        if (sealed or codec == 0) and at + 40 <= end - 40 * count and end <= len(data):
            yield end - 40 * count, count


def damage_record(draw, data):
    """A field of a record, or two records in each other's place; sometimes with the tail torn off,
    so that no index contradicts it first."""
    found = list(tables(data))
    if not found:
        return
    at, count = draw.choice(found)
    one, other = at + 40 * draw.randrange(count), at + 40 * draw.randrange(count)
    if one != other and draw.random() < 0.5:
        data[one:one + 40], data[other:other + 40] = data[other:other + 40], data[one:one + 40]
    else:
        field, size = draw.choice([(0, 1), (1, 1), (2, 2), (4, 4), (8, 8), (16, 8), (24, 8), (32, 8)])
        old = int.from_bytes(data[one + field:one + field + size], "little")
        value = draw.choice([0, 1, draw.randrange(12), 12, 512, 1 << 46, POSITION_MAX, POSITION_MAX + 1,
                             old + 1, old - 1, old + 512, old - 512, draw.getrandbits(64)])
        value &= (1 << 8 * size) - 1
        data[one + field:one + field + size] = value.to_bytes(size, "little")
    if draw.random() < 0.5:
        del data[data.rfind(b"HIDX"):]


def move_positions(draw, data):
    """Moves all positions that are not compressed to where they end."""
    first = struct.unpack_from("<Q", data, 104)[0]
    to = draw.choice([POSITION_MAX, (1 << 64) - 1]) - draw.randrange(60)

    def move(at):
        old = struct.unpack_from("<Q", data, at)[0]
        struct.pack_into("<Q", data, at, (old - first + to) & ((1 << 64) - 1))

    for at, count in list(tables(data)):
        for i in range(count):
            move(at + 40 * i + 8)
    end = 256
    for at in list(blocks(data)):
        move(at + 8)
        end = at + 48 + struct.unpack_from("<I", data, at + 24)[0]
    if data[end:end + 4] == b"HIDX":
        for i in range(struct.unpack_from("<I", data, end + 4)[0]):
            move(end + 16 + 64 * i + 8)
        move(len(data) - FOOTER + 16)
    move(104)
    if draw.random() < 0.3:
        del data[end:]


def add_sections(draw, data):
    """What an optional feature might add; often with something about it that is not right."""
    bit = draw.randrange(32)
    if draw.random() < 0.9:
        old = struct.unpack_from("<I", data, 20)[0]
        struct.pack_into("<I", data, 20, old | 1 << bit)
    if draw.random() < 0.7:
        data[160:232] = draw.randbytes(72)
    added, wrong = b"", draw.choice([None, None, "kind", "magic", "bytes", "checksum", "cut", "grow"])
    count = draw.choice([0, 1, 1, 2, 3, 16, 17])
    for i in range(count):
        content = draw.randbytes(draw.choice([0, 1, 40, 300]))
        last = i == count - 1
        kind = draw.choice([bit + 1, bit - 1, bit + 32, 33]) & 0xffffffff if last and wrong == "kind" else bit
        size = draw.choice([len(content) + 1, (1 << 64) - 1, (1 << 64) - 24, 1 << 23]) \
            if last and wrong == "bytes" else len(content)
        section = (b"HEX?" if last and wrong == "magic" else b"HEXT") + struct.pack("<IQ", kind, size) + content
        added += section + (bytes(8) if last and wrong == "checksum" else checksum(section))
    if wrong == "cut":
        added = added[:-draw.randrange(1, 25)]
    elif wrong == "grow":
        added += bytes(draw.choice([1, 8, 24, 9 << 20]) if draw.random() < 0.1 else 24)
    at = len(data) - FOOTER - (TAIL_TAG if data[27] else 0)
    data[at:at] = added
    struct.pack_into("<Q", data, len(data) - 16, len(data))


def damage_field(draw, data):
    """Near a structure's begin, where the fields are."""
    begins = [0, len(data) - 64, len(data) - 88]
    for magic in (b"HBLK", b"HIDX", b"HEXT", b"HFTR"):
        found = data.find(magic)
        while found >= 0:
            begins += [found] * 3
            found = data.find(magic, found + 1)
    at = max(0, min(len(data) - 9, draw.choice(begins) + draw.randrange(64)))
    size = draw.choice([1, 1, 2, 4, 8])
    value = draw.choice([0, 1, 2, 3, 255, 512, 513, 1 << 31, POSITION_MAX, POSITION_MAX + 1, (1 << 64) - 1,
                         draw.getrandbits(64)])
    old = int.from_bytes(data[at:at + size], "little")
    value = draw.choice([value, old + 1, old - 1]) & ((1 << 8 * size) - 1)
    data[at:at + size] = value.to_bytes(size, "little")


WAYS = ["flip", "flip", "field", "field", "field", "cut", "grow", "splice", "zero", "swap", "newer", "record",
        "record", "record", "section", "section", "chain", "positions"]


def damage(draw, data, others, key):
    """One damaged version of a file, and what was done. key: of the machine whose files are sealed."""
    data = bytearray(data)
    at = draw.randrange(len(data))
    what = draw.choice(WAYS)
    if what == "flip":
        data[at] ^= 1 << draw.randrange(8)
    elif what == "field":
        damage_field(draw, data)
    elif what == "cut":
        del data[at:]
    elif what == "grow":
        data += draw.randbytes(draw.randrange(1, 100))
    elif what == "splice":
        other = draw.choice(others)
        data[at:] = other[min(at, len(other)):]
    elif what == "zero":
        end = min(len(data), at + draw.randrange(1, 600))
        data[at:end] = bytes(end - at)
    elif what == "record":
        damage_record(draw, data)
    elif what == "newer":
        data[draw.choice([8, 9, 16, 17, 18, 19])] |= 1 << draw.randrange(8)
    elif what == "swap":
        size = draw.choice([1, 8, 40, 64])
        other = draw.randrange(len(data))
        data[at:at + size], data[other:other + size] = data[other:other + size], data[at:at + size]
    elif what == "section":
        add_sections(draw, data)
    elif what == "positions":
        move_positions(draw, data)
    if what == "chain":
        return seal_again(data, key, draw.randbytes(8)), "all mended but the chain"
    if what == "section" or draw.random() < 0.2:
        return seal_again(data, key), what + ", mended and sealed again"
    if what in ("newer", "record", "positions") or draw.random() < 0.6:
        return mend(data), what + ", mended"
    return bytes(data), what
