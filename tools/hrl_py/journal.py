# SPDX-License-Identifier: Apache-2.0
"""Journal reads one .hrl file of version 3, by docs/formats/hrl.md.

Promise: hands out only records of blocks that were verified completely, in the order of the file;
ends as the recovery rule says. Memory: one block and the index, whatever the file claims.
Failure: Refused at opening; BlockDamaged while reading a file whose tail is whole; after the last
record of a torn file loss() says what is missing.
"""
import os
import struct
from dataclasses import dataclass

from layout import (
    BLOCK_HEADER_BYTES, BLOCKS_MAX, CHECKSUM_BYTES, DATA_BYTES_MAX, FOOTER_BYTES, HEADER_BYTES,
    INDEX_ENTRY_BYTES, INDEX_HEADER_BYTES, RECORD_HEADER_BYTES, SEAL_HEADER_BYTES, SECTION_BYTES_MAX,
    SECTION_HEADER_BYTES, SECTIONS_MAX, SEGMENT, SPANS_BIT, TAG_BYTES, WITH_RANGE, WRITE, Damaged,
    IndexEntry, Newer, checksum_of, parse_block_header, parse_footer, parse_header,
    parse_index_entry, parse_payload, parse_record_header, require, text_of_id)
from lz4_block import Lz4Error, decompress
from order import Order
from sealing import Sealing

_SEAL_BYTES = SEAL_HEADER_BYTES + TAG_BYTES


class Refused(Exception):
    """Nothing of the file is handed out. case: damaged, newer, unsealed or locked."""

    def __init__(self, case, why):
        super().__init__(why)
        self.case = case


class BlockDamaged(Exception):
    """A block of a file whose tail is whole; nothing behind it is handed out."""

    def __init__(self, block, byte, why):
        super().__init__(f"block {block} at byte {byte}: {why}")
        self.block, self.byte = block, byte


@dataclass
class Loss:
    last_position: int  # of the last whole record; first_position - 1 when there is none
    byte: int           # from here on nothing is believed
    why: str


class Journal:
    """keys: machine keys, 32 bytes each, by (machine id, key id). blind: do without the file's.
    sealed_only: refuse plain files."""

    def __init__(self, path, keys=None, blind=False, sealed_only=False):
        self._file = open(path, "rb")
        try:
            self._open(keys or {}, blind, sealed_only)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def _open(self, keys, blind, sealed_only):
        self._size = os.fstat(self._file.fileno()).st_size
        self._sealing, self._loss = None, None
        try:
            self.header = parse_header(self._read(0, min(self._size, HEADER_BYTES)))
            if not self.header.sealed and sealed_only:
                raise Refused("unsealed", "the file is not sealed")
            machine_key = keys.get((self.header.machine, self.header.key_id))
            if self.header.sealed and machine_key is None and not blind:
                raise Refused("locked", f"needs the key {text_of_id(self.header.key_id)}")
            if self.header.sealed and machine_key is not None:
                self._sealing = Sealing(self.header, machine_key)
                self._sealing.check_header()
        except Newer as newer:
            raise Refused("newer", str(newer)) from None
        except Damaged as damage:
            raise Refused("damaged", str(damage)) from None
        self.torn_because, self.footer, self.entries, self.sections = None, None, None, []
        try:
            self.footer, self.entries, self.sections = self._read_tail()
        except Damaged as damage:
            self.torn_because = str(damage)

    def _read(self, at, count):
        self._file.seek(at)
        data = self._file.read(count)
        require(len(data) == count, "the file ends here")
        return data

    # The tail -------------------------------------------------------------------------------

    def _read_tail(self):
        tag_bytes = TAG_BYTES + CHECKSUM_BYTES if self.header.sealed else 0
        require(self._size >= HEADER_BYTES + FOOTER_BYTES, "the file has no footer")
        raw_footer = self._read(self._size - FOOTER_BYTES, FOOTER_BYTES)
        footer = parse_footer(raw_footer)
        require(footer.file_bytes == self._size, "file_bytes")
        require(1 <= footer.block_count <= BLOCKS_MAX, "block_count")
        index_bytes = (INDEX_HEADER_BYTES + footer.block_count * INDEX_ENTRY_BYTES +
                       CHECKSUM_BYTES)
        end = self._size - FOOTER_BYTES - tag_bytes
        require(HEADER_BYTES <= footer.index_offset <= end, "index_offset")
        rest = end - footer.index_offset - index_bytes
        require(0 <= rest <= SECTION_BYTES_MAX, "the size of index and sections")
        tail = self._read(footer.index_offset, index_bytes + rest)
        index = tail[:index_bytes]
        require(checksum_of(index[:-CHECKSUM_BYTES]) == index[-CHECKSUM_BYTES:],
                "the checksum of the index")
        require(index[:4] == b"HIDX", "the magic of the index")
        require(struct.unpack_from("<I", index, 4)[0] == footer.block_count, "entry_count")
        require(index[8:16] == footer.chain, "the chain of the index")
        entries = [parse_index_entry(index, INDEX_HEADER_BYTES + i * INDEX_ENTRY_BYTES)
                   for i in range(footer.block_count)]
        self._check_entries(footer, entries)
        sections = self._check_sections(tail[index_bytes:])
        tag = self._read(end, tag_bytes)
        if self.header.sealed:
            require(checksum_of(tag[:TAG_BYTES]) == tag[TAG_BYTES:], "the checksum of the tail-tag")
        if self._sealing:
            self._sealing.check_tail(tail + raw_footer, tag[:TAG_BYTES])
        return footer, entries, sections

    def _check_entries(self, footer, entries):
        at, position = HEADER_BYTES, self.header.first_position
        for entry in entries:
            require(entry.file_offset == at, "where a block begins, by the index")
            require(entry.record_count >= 1, "a block without records, by the index")
            at += BLOCK_HEADER_BYTES + entry.stored_bytes + CHECKSUM_BYTES
            if self.header.contents == SEGMENT:
                require(entry.first_position == position, "a position in the index")
            else:
                require(self.header.first_position <= entry.first_position <= footer.last_position,
                        "a position in the index")
            position += entry.record_count
        require(at == footer.index_offset, "where the blocks end, by the index")
        require(sum(e.record_count for e in entries) == footer.record_count, "record_count")
        require(sum(e.raw_bytes for e in entries) == footer.raw_bytes, "raw_bytes")
        if self.header.contents == SEGMENT:
            require(footer.last_position == position - 1, "last_position")

    def _check_sections(self, raw):
        """(kind, bytes) of each; what is in them only their feature knows."""
        require(not raw or self.header.features_optional, "a section where none belongs")
        at, found = 0, []
        while at < len(raw):
            require(len(found) < SECTIONS_MAX, "the number of sections")
            require(at + SECTION_HEADER_BYTES <= len(raw), "a section is cut")
            require(raw[at:at + 4] == b"HEXT", "the magic of a section")
            kind, size = struct.unpack_from("<IQ", raw, at + 4)
            require(kind < 32 and self.header.features_optional >> kind & 1,
                    "a section of a feature that the file has not")
            end = at + SECTION_HEADER_BYTES + size
            require(end + CHECKSUM_BYTES <= len(raw), "a section is cut")
            require(checksum_of(raw[at:end]) == raw[end:end + CHECKSUM_BYTES],
                    "the checksum of a section")
            found.append((kind, raw[at + SECTION_HEADER_BYTES:end]))
            at = end + CHECKSUM_BYTES
        return found

    # The blocks -----------------------------------------------------------------------------

    @property
    def whole(self):
        """Index, sections, tags and footer are there; the blocks are looked at one by one."""
        return self.torn_because is None

    def loss(self):
        """What a torn file lost; None before its last record was taken, and of a whole file."""
        return self._loss

    def records(self):
        """Yields every record that the recovery rule hands out."""
        order = Order(self.header)
        chain, at, number = self.header.chain, HEADER_BYTES, 0
        last = self.header.first_position - 1
        while not self.whole or number < len(self.entries):
            try:
                records, size, chain = self._read_block(number, at, chain, order)
            except Damaged as damage:
                if self.whole:
                    raise BlockDamaged(number, at, str(damage)) from None
                self._loss = Loss(last, at, str(damage))
                return
            yield from records
            last = records[-1].position
            at += size
            number += 1

    def _read_block(self, number, at, chain, order):
        """(records, bytes in the file, checksum) of the block at this byte."""
        raw_header = self._read(at, BLOCK_HEADER_BYTES)
        block = parse_block_header(raw_header)
        require(block.index == number, "the index of a block")
        require(block.chain == chain, "the chain of a block")
        alone = block.record_count == 1 and block.raw_bytes <= DATA_BYTES_MAX + RECORD_HEADER_BYTES
        require(block.raw_bytes <= self.header.block_bytes or alone, "raw_bytes of a block")
        require(block.record_count * RECORD_HEADER_BYTES <= block.raw_bytes, "record_count")
        room = _SEAL_BYTES if self.header.sealed else 0
        require(room <= block.stored_bytes <= block.raw_bytes + room, "stored_bytes of a block")
        body = self._read(at + BLOCK_HEADER_BYTES, block.stored_bytes + CHECKSUM_BYTES)
        stored, checksum = body[:block.stored_bytes], body[block.stored_bytes:]
        require(checksum_of(raw_header + stored) == checksum, "the checksum of a block")
        if self.whole and number == len(self.entries) - 1:
            require(checksum == self.footer.chain, "the footer names another block as the last")
        data, payloads, table = self._plain_parts(block, raw_header, stored)
        records = self._parse_records(block, data, payloads, table, order)
        size = BLOCK_HEADER_BYTES + len(body)
        if self.whole:
            self._compare(self.entries[number], at, block, records, order)
        return records, size, checksum

    def _plain_parts(self, block, raw_header, stored):
        """(data of writes or None without the key, payloads, headers); of a plain file all of the
        data and payloads, mixed, is in the second and the first is b""."""
        table_bytes = block.record_count * RECORD_HEADER_BYTES
        if not self.header.sealed:
            raw = self._expand(block.codec, stored, block.raw_bytes)
            return b"", raw[:-table_bytes], raw[-table_bytes:]
        seal_header = stored[:SEAL_HEADER_BYTES]
        require(seal_header[:16] == self.header.segment, "the segment of a sealed block")
        require(seal_header[16:32] == self.header.seal, "the sealing of a block")
        index, plain_bytes = struct.unpack_from("<II", seal_header, 32)
        require(index == block.index, "the index of a sealed block")
        require(table_bytes <= plain_bytes <= block.raw_bytes, "plain_bytes")
        sealed_bytes = block.stored_bytes - _SEAL_BYTES - plain_bytes
        require(sealed_bytes >= 0, "plain_bytes")
        self._check_size(block.codec, sealed_bytes, block.raw_bytes - plain_bytes)
        plain_at = SEAL_HEADER_BYTES + sealed_bytes
        sealed, plain = stored[SEAL_HEADER_BYTES:plain_at], stored[plain_at:-TAG_BYTES]
        data = None
        if self._sealing:
            opened = self._sealing.open_block(raw_header, seal_header, sealed, plain,
                                              stored[-TAG_BYTES:])
            data = self._expand(block.codec, opened, block.raw_bytes - plain_bytes)
        self._sealed_raw_bytes = block.raw_bytes - plain_bytes
        return data, plain[:-table_bytes], plain[-table_bytes:]

    @staticmethod
    def _check_size(codec, stored_bytes, raw_bytes):
        require(stored_bytes == raw_bytes if codec == 0 else stored_bytes < raw_bytes,
                "stored_bytes and raw_bytes of a block")

    def _expand(self, codec, stored, raw_bytes):
        self._check_size(codec, len(stored), raw_bytes)
        if codec == 0:
            return stored
        try:
            return decompress(stored, raw_bytes)
        except Lz4Error as error:
            raise Damaged(f"LZ4: {error}") from None

    def _parse_records(self, block, data, payloads, table, order):
        records, data_at, payload_at = [], 0, 0
        order.begin_block()
        for i in range(block.record_count):
            record = parse_record_header(table, i * RECORD_HEADER_BYTES)
            if i == 0:
                require(record.position == block.first_position, "first_position of a block")
            order.take(record)
            if self.whole:
                require(record.position <= self.footer.last_position,
                        "a position beyond the file's last")
            if record.kind == WRITE and self.header.sealed:
                if data is not None:
                    record.data = data[data_at:data_at + record.data_bytes]
                    require(len(record.data) == record.data_bytes, "the data of a block")
                else:
                    record.data = None
                data_at += record.data_bytes
            else:
                payload = payloads[payload_at:payload_at + record.data_bytes]
                require(len(payload) == record.data_bytes, "the payloads of a block")
                payload_at += record.data_bytes
                record.data = payload
                if record.kind != WRITE:
                    record.fields = parse_payload(record.kind, payload)
            records.append(record)
        require(payload_at == len(payloads), "data that belongs to no record")
        if self.header.sealed:
            require(data_at == self._sealed_raw_bytes, "data that belongs to no record")
        return records

    @staticmethod
    def _compare(entry, at, block, records, order):
        ranges = [r for r in records if r.kind in WITH_RANGE]
        kinds = 0
        for record in records:
            kinds |= 1 << record.kind
        if order.block_is_spans:
            kinds |= 1 << SPANS_BIT
        said = IndexEntry(
            at, block.first_position, min((r.offset for r in ranges), default=0),
            max((r.end for r in ranges), default=0), min(r.time_ns for r in records),
            max(r.time_ns for r in records), block.record_count, block.raw_bytes,
            block.stored_bytes, kinds)
        require(entry == said, "a block is not what the index says of it")
