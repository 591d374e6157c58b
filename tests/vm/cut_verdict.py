# SPDX-License-Identifier: Apache-2.0
"""What must hold of origin, meta device and replica after a cut at any instant of a CutLog.

Promise: by the facts that the test knows of a run (Facts), by the log, and by the document's recovery
rule (dirty_map.py); the driver has no say here.
"""
import dataclasses
import random

import dirty_map
from cut_log import ZEROES, CutDisk, CutLog, Image, Replay, Write
from dirty_map import BLOCK_SECTORS, Recovered

REGIONS_MAX = 1007
NEVER = 1 << 62


@dataclasses.dataclass
class Window:
    """A suspend: positions before it was asked for, when it was in effect, before the resume, after it."""
    asked: int
    suspended: int
    resuming: int
    resumed: int
    shrinks: bool = False


@dataclasses.dataclass
class Facts:
    """What is known of one disk in one log."""
    first: int = 0                       # cuts before it are of no interest: nothing is set up
    sizes: list[tuple[int, int]] = dataclasses.field(default_factory=list)  # from a position on: sectors
    gap: str = "-"                       # at the start
    closing: int = 0                     # before it was told to be closed
    closed: int = 0
    watched: int = NEVER                 # from here on its watched ranges are written to,
    unwatched: int = NEVER               # and from here on not for long enough
    windows: list[Window] = dataclasses.field(default_factory=list)
    held: int = 0                        # from here on a flush was under way
    quiet: int = 0                       # all was stored, and what went was written down
    carried: set[int] = dataclasses.field(default_factory=set)  # blocks that were dirty at the start

    def size(self, position: int) -> int:
        return [sectors for since, sectors in self.sizes if since <= position][-1]

    def gaps(self, position: int) -> set[str]:
        """Those that may be named."""
        if self.gap != "-" and position <= self.closing:
            return {self.gap}
        allowed = {"-"}
        if position < self.closed:
            allowed.add(self.gap)
        if self.watched <= position < self.unwatched:
            allowed.add("watch-open")
        for window in self.windows:
            if window.suspended <= position <= window.resuming:
                return {"not-detached"}
            if window.asked <= position < window.resumed:
                allowed.add("not-detached")
                if window.shrinks:
                    allowed.add("changed-untracked")
        return allowed


@dataclasses.dataclass
class Tracked:
    """A tracked disk. What is on it and on the two others is `sectors_max` at most."""
    name: str
    origin: CutDisk
    meta: CutDisk
    replica: CutDisk
    options: tuple[str, ...]
    sectors_max: int
    facts: Facts = dataclasses.field(default_factory=Facts)

    def disks(self) -> tuple[CutDisk, CutDisk, CutDisk]:
        return self.origin, self.meta, self.replica


@dataclasses.dataclass
class State:
    """One of the states that a cut can leave."""
    tracked: Tracked
    position: int
    sectors: int
    images: tuple[Image, Image, Image]   # what is laid over what was durable
    says: Recovered
    differing: set[int]                  # blocks
    problems: list[str]


class Verdict:
    """Walks a log once, in ascending order."""

    def __init__(self, log: CutLog, tracked: list[Tracked]):
        self.log, self.tracked = log, tracked
        self.replay = Replay(log)
        self.differing = {one.name: self._differing_at_start(one) for one in tracked}
        self.written: dict[str, set[int]] = {one.name: set(one.facts.carried) for one in tracked}

    def _differing_at_start(self, one: Tracked) -> set[int]:
        origin, replica = one.origin.base, one.replica.base
        return {sector for sector in origin.keys() | replica.keys()
                if origin.get(sector, ZEROES) != replica.get(sector, ZEROES)}

    def go(self, position: int) -> None:
        for at in range(self.replay.position, position):
            event = self.log.events[at]
            for one in self.tracked:
                if at == one.facts.quiet and at:
                    self.written[one.name].clear()
                if isinstance(event, Write) and event.disk is one.origin:
                    sectors = event.sectors()
                    self.written[one.name].update(range(sectors[0] // BLOCK_SECTORS, sectors[-1] // BLOCK_SECTORS + 1))
        self.replay.go(position)
        for one in self.tracked:
            origin, replica = self.replay.durable[one.origin], self.replay.durable[one.replica]
            differing = self.differing[one.name]
            for disk in (one.origin, one.replica):
                for sector in self.replay.changed[disk]:
                    if origin.get(sector, ZEROES) == replica.get(sector, ZEROES):
                        differing.discard(sector)
                    else:
                        differing.add(sector)
                self.replay.changed[disk].clear()

    def state(self, one: Tracked, rng: random.Random) -> State:
        """One of those here, and what is wrong with it."""
        position, facts = self.replay.position, one.facts
        sectors = facts.size(position)
        over = tuple(self.replay.overlay(disk, rng) for disk in one.disks())
        origin, meta, replica = (self.replay.durable[disk] for disk in one.disks())

        def read(first: int, count: int) -> bytes:
            return b"".join(over[0].get(sector) or origin.get(sector, ZEROES) for sector in range(first, first + count))

        content = b"".join(over[1].get(sector) or meta.get(sector, ZEROES)
                           for sector in range(dirty_map.meta_bytes(one.sectors_max) // dirty_map.SECTOR))
        says = dirty_map.recover(content, sectors, read)
        touched = over[0].keys() | over[2].keys()
        differing = {sector // BLOCK_SECTORS for sector in self.differing[one.name]
                     if sector not in touched and sector < sectors}
        for sector in touched:
            if sector < sectors and (over[0].get(sector) or origin.get(sector, ZEROES)) != \
                    (over[2].get(sector) or replica.get(sector, ZEROES)):
                differing.add(sector // BLOCK_SECTORS)
        return State(one, position, sectors, over, says, differing, self.problems(one, says, differing))

    def problems(self, one: Tracked, says: Recovered, differing: set[int]) -> list[str]:
        position, facts = self.replay.position, one.facts
        found = []
        uncovered = differing - says.dirty
        if uncovered:
            found.append(f"{len(uncovered)} of {len(differing)} blocks in which origin and replica differ are not dirty: "
                         f"{sorted(uncovered)[:8]}; gap {says.gap}")
        if says.gap not in facts.gaps(position):
            found.append(f"gap {says.gap}, where there may be {sorted(facts.gaps(position))}")
        written = self.written[one.name]
        # What a disk grew by is dirty.
        sizes = [sectors for _, sectors in facts.sizes]
        grown = range(min(sizes) // BLOCK_SECTORS, dirty_map.blocks_of(max(sizes)))
        beyond = {block for block in says.dirty
                  if block // 64 not in says.hot and block not in written and block not in grown}
        if beyond:
            found.append(f"dirty beyond the activity log, and all was stored: {sorted(beyond)[:8]}")
        if len(says.hot) > REGIONS_MAX:
            found.append(f"{len(says.hot)} regions are hot")
        return found
