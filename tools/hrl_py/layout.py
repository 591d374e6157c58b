# SPDX-License-Identifier: Apache-2.0
"""The tables of docs/formats/hrl.md: fields, kinds, limits, and what is valid by them.

Every function here takes bytes and either returns what they say or raises Damaged.
"""
import struct
import uuid
from dataclasses import dataclass, field

from xxh3 import xxh3_64

MAGIC = bytes.fromhex("8948524c0d0a1a0a")
VERSION = 3
HEADER_BYTES, BLOCK_HEADER_BYTES, RECORD_HEADER_BYTES = 256, 40, 40
INDEX_HEADER_BYTES, INDEX_ENTRY_BYTES, FOOTER_BYTES = 16, 64, 64
SECTION_HEADER_BYTES, SEAL_HEADER_BYTES, TAG_BYTES, CHECKSUM_BYTES = 16, 40, 16, 8

SECTOR = 512
DISK_BYTES_MAX = 64 << 40
DATA_BYTES_MAX = 1 << 20
BLOCK_BYTES_MIN, BLOCK_BYTES_MAX = 512, 256 << 10
BLOCKS_MAX = 131072
POSITION_MAX = (1 << 63) - 1
TEXT_BYTES_MAX = 255
SECTIONS_MAX, SECTION_BYTES_MAX = 16, 8 << 20

REQUIRED_SEALED = 1
REQUIRED_NAMES = {0: "sealed"}

BY_POSITION, BY_BLOCK = 1, 2
SEGMENT, DELTA_LAYER, IMAGE_LAYER = 0, 1, 2

(WRITE, ZEROES, DISCARD, SECURE_ERASE, TAG, RESIZE, REREAD, SCAN_BEGIN, SCAN_END, MODE_CHANGE,
 ACTIVATION) = range(1, 12)
KIND_NAMES = {
    WRITE: "write", ZEROES: "zeroes", DISCARD: "discard", SECURE_ERASE: "secure-erase",
    TAG: "tag", RESIZE: "resize", REREAD: "reread", SCAN_BEGIN: "scan-begin",
    SCAN_END: "scan-end", MODE_CHANGE: "mode-change", ACTIVATION: "activation"}
WITH_RANGE = {WRITE, ZEROES, DISCARD, SECURE_ERASE, REREAD}
IMAGE_KINDS = {WRITE, ZEROES, DISCARD, SECURE_ERASE}
SPANS_BIT = 31

ZERO_ID = bytes(16)


class Damaged(Exception):
    """Bytes that break an invariant of the format."""


class Newer(Exception):
    """A version or a required feature that this reader does not know."""


def require(holds, what):
    if not holds:
        raise Damaged(what)


def checksum_of(data):
    return struct.pack("<Q", xxh3_64(data))


def text_of_id(raw):
    return str(uuid.UUID(bytes=bytes(raw)))


@dataclass
class Header:
    block_bytes: int
    features_required: int
    features_optional: int
    record_order: int
    contents: int
    granule_log2: int
    sealed_by: int
    machine: bytes
    disk: bytes
    segment: bytes
    previous_segment: bytes
    epoch: int
    first_position: int
    disk_bytes: int
    created_ns: int
    key_id: bytes
    seal: bytes
    tag: bytes
    chain: bytes
    raw: bytes = field(repr=False, default=b"")

    @property
    def sealed(self):
        return self.sealed_by != 0


def parse_header(raw):
    require(len(raw) == HEADER_BYTES, "the file is shorter than a header")
    require(raw[:8] == MAGIC, "it does not begin as an .hrl file")
    require(checksum_of(raw[:248]) == raw[248:], "the checksum of the header")
    version, header_bytes, block_bytes, required, optional = struct.unpack_from("<HHIII", raw, 8)
    if version != VERSION:
        raise Newer(f"version {version}")
    for bit in range(32):
        if required >> bit & 1 and bit not in REQUIRED_NAMES:
            raise Newer(f"required feature {bit}")
    require(header_bytes == HEADER_BYTES, "header_bytes")
    require(BLOCK_BYTES_MIN <= block_bytes <= BLOCK_BYTES_MAX, "block_bytes")
    order, contents, granule, sealed_by = raw[24:28]
    require(raw[28:32] == bytes(4), "reserved bytes of the header")
    require(optional != 0 or raw[160:232] == bytes(72), "reserved bytes of the header")
    header = Header(block_bytes, required, optional, order, contents, granule, sealed_by,
                    raw[32:48], raw[48:64], raw[64:80], raw[80:96],
                    *struct.unpack_from("<QQQQ", raw, 96), raw[128:144], raw[144:160],
                    raw[232:248], raw[248:], raw)
    require((contents, order) in {(SEGMENT, BY_POSITION), (DELTA_LAYER, BY_POSITION),
                                  (DELTA_LAYER, BY_BLOCK), (IMAGE_LAYER, BY_BLOCK)},
            "contents and record_order")
    require(granule == 0 if order == BY_POSITION else 9 <= granule <= 20, "granule_log2")
    require(sealed_by <= 2, "sealed_by")
    require(bool(required & REQUIRED_SEALED) == (sealed_by != 0), "the feature 'sealed'")
    if header.sealed:
        require(header.key_id != ZERO_ID and header.seal != ZERO_ID, "key_id and seal")
    else:
        require(header.key_id == ZERO_ID and header.seal == ZERO_ID, "key_id and seal")
        require(header.tag == bytes(16), "header_tag of a plain file")
    if contents != SEGMENT:
        require(header.previous_segment == ZERO_ID, "previous_segment of a layer")
    require(1 <= header.first_position <= POSITION_MAX, "first_position")
    require(header.disk_bytes % SECTOR == 0 and header.disk_bytes <= DISK_BYTES_MAX, "disk_bytes")
    return header


@dataclass
class BlockHeader:
    index: int
    first_position: int
    record_count: int
    raw_bytes: int
    stored_bytes: int
    codec: int
    chain: bytes


def parse_block_header(raw):
    require(raw[:4] == b"HBLK", "the magic of a block")
    index, first, count, raw_bytes, stored = struct.unpack_from("<IQIII", raw, 4)
    require(raw[29:32] == bytes(3), "reserved bytes of a block")
    require(raw[28] <= 1, "the codec of a block")
    require(count >= 1, "a block without records")
    return BlockHeader(index, first, count, raw_bytes, stored, raw[28], raw[32:40])


@dataclass
class IndexEntry:
    file_offset: int
    first_position: int
    disk_offset_min: int
    disk_offset_end: int
    time_min_ns: int
    time_max_ns: int
    record_count: int
    raw_bytes: int
    stored_bytes: int
    kinds: int


def parse_index_entry(raw, at):
    return IndexEntry(*struct.unpack_from("<6Q4I", raw, at))


@dataclass
class Footer:
    block_count: int
    index_offset: int
    last_position: int
    record_count: int
    raw_bytes: int
    chain: bytes
    file_bytes: int


def parse_footer(raw):
    require(len(raw) == FOOTER_BYTES and raw[:4] == b"HFTR", "the magic of the footer")
    require(checksum_of(raw[:56]) == raw[56:], "the checksum of the footer")
    count, offset, last, records, raw_bytes = struct.unpack_from("<IQQQQ", raw, 4)
    require(last <= POSITION_MAX, "last_position")
    return Footer(count, offset, last, records, raw_bytes, raw[40:48],
                  struct.unpack_from("<Q", raw, 48)[0])


@dataclass
class Record:
    kind: int
    position: int
    offset: int
    length: int
    time_ns: int
    data_bytes: int
    data: bytes = field(default=b"", repr=False)  # or payload; None: sealed and no key
    fields: dict = field(default_factory=dict)    # of markers

    @property
    def end(self):
        return self.offset + self.length


def parse_record_header(raw, at):
    kind, flags, reserved, data_bytes, position, offset, length, time_ns = struct.unpack_from(
        "<BBHIQQQQ", raw, at)
    require(kind in KIND_NAMES, f"record kind {kind}")
    require(flags == 0 and reserved == 0, "reserved bytes of a record")
    require(1 <= position <= POSITION_MAX, "the position of a record")
    record = Record(kind, position, offset, length, time_ns, data_bytes)
    if kind in WITH_RANGE:
        require(length > 0 and offset % SECTOR == 0 and length % SECTOR == 0,
                "a range that is empty or no multiple of 512")
        require(offset <= DISK_BYTES_MAX and record.end <= DISK_BYTES_MAX, "a range beyond 64 TiB")
    elif kind == RESIZE:
        require(offset == 0 and 0 < length <= DISK_BYTES_MAX and length % SECTOR == 0,
                "the size of a resize")
    else:
        require(offset == 0 and length == 0, "a range where none belongs")
    if kind == WRITE:
        require(length <= DATA_BYTES_MAX and data_bytes == length, "the data of a write")
    elif kind in WITH_RANGE or kind == RESIZE:
        require(data_bytes == 0, "data where none belongs")
    return record


class _Payload:
    def __init__(self, raw):
        self.raw, self.at = raw, 0

    def take(self, count):
        require(self.at + count <= len(self.raw), "a payload is cut")
        self.at += count
        return self.raw[self.at - count:self.at]

    def number(self, count):
        return int.from_bytes(self.take(count), "little")

    def choice(self, names):
        value = self.number(1)
        require(1 <= value <= len(names), f"a payload's value {value}")
        return names[value - 1]

    def zero(self, count):
        require(self.take(count) == bytes(count), "reserved bytes of a payload")

    def text(self):
        size = self.number(4)
        require(size <= TEXT_BYTES_MAX, "the length of a text")
        try:
            text = self.take(size).decode("utf-8")
        except UnicodeDecodeError:
            raise Damaged("a text that is not UTF-8") from None
        require(not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in text),
                "a control character in a text")
        return text


def parse_payload(kind, raw):
    """The fields of a marker's payload."""
    payload, fields = _Payload(raw), {}
    if kind == TAG:
        fields["id"] = text_of_id(payload.take(16))
        fields["time_ns"] = payload.number(8)
        fields["kind"] = payload.choice(["manual", "scheduled", "group", "final"])
        fields["consistency"] = payload.choice(["crash", "filesystem", "application"])
        payload.zero(2)
        fields["name"] = payload.text()
    elif kind == SCAN_BEGIN:
        fields["scan"] = payload.number(8)
        fields["cause"] = payload.choice(["initial", "catch-up", "digest", "full", "reread"])
        payload.zero(7)
    elif kind == SCAN_END:
        fields["scan"] = payload.number(8)
        fields["unreadable_blocks"] = payload.number(8)
        quiescent = payload.number(1)
        require(quiescent <= 1, "the quiescence of a scan's end")
        fields["quiescent"] = bool(quiescent)
        payload.zero(7)
    elif kind == MODE_CHANGE:
        fields["mode"] = payload.choice(["ordered", "extents", "map", "unordered"])
        payload.zero(3)
        fields["cause"] = payload.text()
    elif kind == ACTIVATION:
        fields["session"] = text_of_id(payload.take(16))
        fields["mode"] = payload.choice(["ordered", "extents", "map", "unordered"])
        payload.zero(3)
        fields["tracker"] = payload.text()
        fields["gap"] = payload.text()
    require(payload.at == len(raw), "a payload is longer than its fields")
    return fields
