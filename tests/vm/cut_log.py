# SPDX-License-Identifier: Apache-2.0
"""Disks whose every write and flush is on record, so that the power can be cut at any instant after the
fact, as often as one likes.

    log = CutLog(random.Random(1))
    disk = log.disk(folder, "origin", size_mib=64)      # a backend for machine.Disk
    ... a machine writes to it, and is killed ...
    for replay in log.instants([17, 4711]):             # events of all disks are in one order
        image = replay.image(disk, random.Random(2))    # one of the images that a cut there can leave

Promise: an image holds what was durable, and of every other write that the disk had received, independently,
all, nothing, or any selection of its sectors. Durable is what a flush covers that has *completed*, and that
is what was answered before the flush was received; and what was written through (FUA) and answered.
What is not on record is what no machine can tell: an instant is the end of an event, of one disk.
A flush takes up to seconds_max, and one write in twenty some of that: others overtake them. hold_flushes()
makes flushes wait for release_flushes(), or for ever.
Callers: the test's thread, while no machine runs; LossyDisk's threads and timers otherwise.
Owns: what LossyDisk does; and all that was written since the last start(), in memory.
"""
import pathlib
import random
import struct
import threading
import time

from lossy_disk import (ANSWER_MAGIC, CMD_DISCONNECT, CMD_FLUSH, CMD_READ, CMD_TRIM, CMD_WRITE, CMD_WRITE_ZEROES,
                        FLAG_FUA, REQUEST_MAGIC, SECTOR, LossyDisk)

ZEROES = bytes(SECTOR)
# An image of a disk: its sectors, by number, where they are not zero.
Image = dict[int, bytes]


class Write:
    """One write to one disk; `answered` is true once the machine may count on nothing but a flush."""
    __slots__ = ("disk", "sector", "content", "forced", "answered")

    def __init__(self, disk: "CutDisk", sector: int, content: bytes, forced: bool):
        self.disk, self.sector, self.content, self.forced, self.answered = disk, sector, content, forced, False

    def sectors(self):
        return range(self.sector, self.sector + len(self.content) // SECTOR)

    def at(self, sector: int) -> bytes:
        begin = (sector - self.sector) * SECTOR
        return self.content[begin:begin + SECTOR]


class CutDisk(LossyDisk):
    def __init__(self, log: "CutLog", folder: pathlib.Path, name: str, size_mib: int, seconds_max: float):
        super().__init__(folder, name, size_mib, seed=0)
        # One for all disks: a cut is of all of them at the same instant.
        self.log, self.lock = log, log.lock
        self.name, self.seconds_max = name, seconds_max
        self.base: Image = {}
        self.unflushed: list[Write] = []
        self.holding = False
        self.held: list[tuple] = []
        self.sending = threading.Lock()

    def cut(self) -> None:
        """The machine is off; the log decides what there is."""
        self.log.stop()

    def restart(self, image: Image) -> None:
        for sector in self.base.keys() | image.keys() | self.log.written(self):
            self.seen[sector * SECTOR:(sector + 1) * SECTOR] = image.get(sector, ZEROES)
        self.base = image
        self.unflushed = []
        self.holding, self.held = False, []

    def hold_flushes(self) -> None:
        with self.lock:
            self.holding = True

    def release_flushes(self) -> None:
        with self.lock:
            self.holding, held, self.held = False, self.held, []
        for answer in held:
            self._answer(*answer)

    def _request(self, stream) -> bool:
        magic, flags, command, handle, offset, length = struct.unpack(">IHHQQI", self._receive(stream, 28))
        if magic != REQUEST_MAGIC or command == CMD_DISCONNECT:
            return False
        content = self._receive(stream, length) if command == CMD_WRITE else b""
        if command in (CMD_TRIM, CMD_WRITE_ZEROES):
            content = bytes(length)
        answer, error, writes, later = b"", 0, [], 0.0
        with self.lock:
            if command != CMD_FLUSH and offset + length > self.bytes:
                error = 22
            elif command == CMD_READ:
                answer = self.seen[offset:offset + length]
            elif command in (CMD_WRITE, CMD_TRIM, CMD_WRITE_ZEROES):
                writes = [self._received(offset, content, bool(flags & FLAG_FUA))]
                if self.log.random.random() < 0.05:
                    later = self.log.random.random() * self.seconds_max / 20
            elif command == CMD_FLUSH:
                writes = [write for write in self.unflushed if write.answered]
                later = self.log.random.random() * self.seconds_max
                if self.holding:
                    self.held.append((stream, command, handle, error, answer, writes))
                    return True
            else:
                error = 22
        if later < 0.001:
            self._answer(stream, command, handle, error, answer, writes)
        else:
            timer = threading.Timer(later, self._answer, (stream, command, handle, error, answer, writes))
            timer.daemon = True
            timer.start()
        return True

    def _received(self, offset: int, content: bytes, forced: bool) -> Write:
        self.seen[offset:offset + len(content)] = content
        write = Write(self, offset // SECTOR, content, forced)
        self.unflushed.append(write)
        self.log.add(write)
        return write

    def _answer(self, stream, command: int, handle: int, error: int, answer: bytes, writes: list[Write]) -> None:
        with self.lock:
            if command == CMD_FLUSH:
                self._durable(writes)
            for write in writes:
                write.answered = True
                if write.forced:
                    self._durable([write])
        try:
            with self.sending:
                stream.sendall(struct.pack(">IIQ", ANSWER_MAGIC, error, handle) + answer)
        except OSError:
            pass  # the machine was killed

    def _durable(self, writes: list[Write]) -> None:
        gone = set(map(id, writes))
        self.unflushed = [write for write in self.unflushed if id(write) not in gone]
        self.log.add(writes)


class Replay:
    """The disks at one instant."""

    def __init__(self, log: "CutLog"):
        self.log = log
        self.position = 0
        self.durable: dict[CutDisk, Image] = {disk: dict(disk.base) for disk in log.disks}
        self.unflushed: dict[CutDisk, dict[int, Write]] = {disk: {} for disk in log.disks}
        # Sectors that changed since somebody last looked, for whoever compares disks.
        self.changed: dict[CutDisk, set[int]] = {disk: set() for disk in log.disks}

    def go(self, position: int) -> None:
        for event in self.log.events[self.position:position]:
            if isinstance(event, Write):
                self.unflushed[event.disk][id(event)] = event
                continue
            for write in event:
                if self.unflushed[write.disk].pop(id(write), None) is None:
                    continue
                durable, changed = self.durable[write.disk], self.changed[write.disk]
                for sector in write.sectors():
                    durable[sector] = write.at(sector)
                    if durable[sector] == ZEROES:
                        del durable[sector]
                changed.update(write.sectors())
        self.position = position

    def overlay(self, disk: CutDisk, rng: random.Random) -> Image:
        """What becomes of the writes that are not durable: what is to be laid over what is."""
        over: Image = {}
        # As likely as not a disk keeps, or loses, nearly all: what differs most from the others then.
        fates = rng.choice((("kept", "dropped", "torn"), ("kept", "dropped", "torn"), ("kept",) * 9 + ("torn",),
                            ("dropped",) * 9 + ("torn",)))
        for write in self.unflushed[disk].values():
            fate = rng.choice(fates)
            self.log.fates[fate] += 1
            for sector in write.sectors() if fate != "dropped" else ():
                if fate == "kept" or rng.random() < 0.5:
                    over[sector] = write.at(sector)
        return over

    def image(self, disk: CutDisk, rng: random.Random) -> Image:
        return {**self.durable[disk], **self.overlay(disk, rng)}


class CutLog:
    def __init__(self, rng: random.Random):
        self.random = rng
        self.lock = threading.Lock()
        self.disks: list[CutDisk] = []
        # A Write when it was received; a list of them when a flush made them durable.
        self.events: list[Write | list[Write]] = []
        self.stopped = True
        self.fates = {"kept": 0, "dropped": 0, "torn": 0}

    def disk(self, folder: pathlib.Path, name: str, size_mib: int, seconds_max=0.0) -> CutDisk:
        self.disks.append(CutDisk(self, folder, name, size_mib, seconds_max))
        return self.disks[-1]

    def add(self, event) -> None:
        if not self.stopped:
            self.events.append(event)

    def written(self, disk: CutDisk) -> set[int]:
        return {sector for event in self.events if isinstance(event, Write) and event.disk is disk
                for sector in event.sectors()}

    def position(self) -> int:
        with self.lock:
            return len(self.events)

    def stop(self) -> None:
        with self.lock:
            self.stopped = True

    def start(self, images: dict[CutDisk, Image]) -> None:
        """A machine is about to boot from these."""
        # Flushes that the last one waited for.
        time.sleep(max(disk.seconds_max for disk in self.disks))
        for disk in self.disks:
            disk.restart(images.get(disk, {}))
        self.events = []
        self.stopped = False

    def instants(self, positions):
        """The replay at each of these, in ascending order."""
        replay = Replay(self)
        for position in sorted(positions):
            replay.go(position)
            yield replay
