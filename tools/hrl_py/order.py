# SPDX-License-Identifier: Apache-2.0
"""In which order records may follow one another (docs/formats/hrl.md, "Order and contents")."""
from layout import BY_POSITION, IMAGE_KINDS, IMAGE_LAYER, SEGMENT, WITH_RANGE, WRITE, require

_MARKERS, _SPANS, _PIECES = range(3)


class Order:
    """Takes the records of a file one by one; raises Damaged at one that is out of place."""

    def __init__(self, header):
        self.header = header
        self.granule_bytes = 1 << header.granule_log2
        self.position = header.first_position - 1
        self.key = None
        self.part = _MARKERS
        self.part_of_block = None

    def begin_block(self):
        self.part_of_block = None

    @property
    def block_is_spans(self):
        return self.part_of_block == _SPANS

    def take(self, record):
        header = self.header
        require(record.position >= header.first_position, "a position before the file's first")
        if header.contents == SEGMENT:
            require(record.position == self.position + 1, "the position of a record")
        self.position = record.position
        if header.contents == IMAGE_LAYER:
            require(record.kind in IMAGE_KINDS, "a kind that an image cannot hold")
        if header.record_order == BY_POSITION:
            self._follow(_MARKERS, (record.position, record.offset))
            return
        part, key = self._place(record)
        require(self.part_of_block in (None, part), "a block of two parts")
        self.part_of_block = part
        require(part >= self.part, "the order of the parts")
        if part != self.part:
            self.part, self.key = part, None
        self._follow(part, key)

    def _place(self, record):
        if record.kind not in WITH_RANGE:
            return _MARKERS, (record.position, record.offset)
        granule = record.offset // self.granule_bytes
        key = (granule, record.position, record.offset)
        if (record.end - 1) // self.granule_bytes == granule:
            return _PIECES, key
        require(record.kind != WRITE, "a write that crosses granules")
        return _SPANS, key

    def _follow(self, part, key):
        require(self.key is None or key > self.key, "the order of the records")
        self.key = key
