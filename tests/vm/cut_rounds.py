# SPDX-License-Identifier: Apache-2.0
"""The runs of driver_cuts.py: a machine with five tracked disks under load, killed; then the next boot
looks at what cuts of that run leave, and begins from what the kill left.

Owns: the machine, the folder's images. Failure: Uncovered when a cut left what must not be.
"""
import dataclasses
import hashlib
import os
import pathlib
import random
import re
import time

import driver
from cut_log import CutLog, Write
from cut_verdict import Facts, State, Tracked, Verdict, Window
from dirty_map import BLOCK_SECTORS, REGION_SECTORS, SECTOR
from initramfs import Initramfs
from machine import Disk, Machine, scaled

MIB = 1 << 11  # sectors
SECTORS = 48 * MIB
# Not a whole number of blocks.
SMALL = 40 * MIB - 24
# More regions than the activity log holds, so that some retire.
WIDE = 6144 * MIB
FIRST, SPAN = REGION_SECTORS, 3 * REGION_SECTORS
WATCHED_SPAN = 200
WIDE_WRITES = 4000
DM = "DM_DISABLE_UDEV=1 dmsetup"
# By how many positions of a run the rule is held against the log, and how often at each.
LOOKS, LOOKS_EACH = scaled((150, 1), (300, 2), (300, 2))
# Twice what the driver takes to tidy up, and some.
QUIET_SECONDS = 14


class Uncovered(AssertionError):
    pass


@dataclasses.dataclass
class Slot:
    """A state as three slices of the disk of cuts."""
    state: State
    cut: int
    offsets: tuple[int, int, int]  # sectors


def run(initramfs: Initramfs, folder: pathlib.Path, rng: random.Random, rounds: int, per_round: int, name: str) -> None:
    log = CutLog(random.Random(rng.getrandbits(32)))
    tracked, disks = [], []
    # Ordered and quiet at its ends; without payload, suspended; rings too small, readers that die; another
    # size again and again; more regions than are hot.
    for label, sectors, options, delay in (("ordered", SECTORS, ("slots", "4096", "payload_bytes", "4194304"), 0.1),
                                           ("extents", SECTORS, ("slots", "1024", "payload_bytes", "0"), 0.05),
                                           ("map", SECTORS, ("slots", "16", "payload_bytes", "2097152"), 0.05),
                                           ("resized", SECTORS, ("slots", "4096", "payload_bytes", "2097152"), 0.1),
                                           ("wide", WIDE, ("slots", "32768", "payload_bytes", "67108864"), 0.8)):
        own = [log.disk(folder, f"{label}-{part}", mib, seconds) for part, mib, seconds in
               (("origin", sectors // MIB, delay), ("meta", 1, 0.0), ("replica", sectors // MIB, 0.0))]
        disks += [Disk("virtio-blk", backend=disk, serial=disk.name) for disk in own]
        tracked.append(Tracked(label, *own, options, sectors))
    it = Rounds(folder / "cuts", log, tracked, rng, per_round)
    with Machine(name, initramfs, [*disks, Disk("virtio-blk", image=it.file, serial="cuts")], memory_mib=1024) as machine:
        it.machine = machine
        for number in range(rounds):
            it.boot()
            it.look_at_cuts()
            it.run_and_kill(number)
            it.cut()
        it.boot()
        it.look_at_cuts()
        for one in tracked:
            if one.name in it.left:
                it.begin(one)
        machine.shut_down()
    print(f"{it.cuts} cuts of {len(tracked)} disks: {it.booted} pairs booted, {it.looks} looked at, {it.converged} replicas "
          f"brought up to date by {it.scanned} blocks, {it.gaps} after a gap; fates {log.fates}", flush=True)


class Rounds:
    machine: Machine
    since = 0.0

    def __init__(self, file: pathlib.Path, log: CutLog, tracked: list[Tracked], rng: random.Random, per_round: int):
        self.file, self.log, self.tracked, self.rng, self.per_round = file, log, tracked, rng, per_round
        self.slots: list[Slot] = []
        self.start: dict = {}
        self.left: dict[str, State] = {}
        self.cuts = self.booted = self.looks = self.converged = self.scanned = self.gaps = 0
        # Slices begin at whole mebibytes.
        self.stride = sum(2 * one.sectors_max + MIB for one in tracked)
        self._empty()

    def _empty(self) -> None:
        with open(self.file, "wb") as file:
            file.truncate((self.per_round + 1) * self.stride * SECTOR)

    # -- a run --
    def boot(self) -> None:
        self.log.start(self.start)
        self.since = time.monotonic()
        self.machine.boot()
        driver.load(self.machine)
        found = self.machine.run('for disk in /sys/block/vd*; do echo "$(cat $disk/serial) /dev/${disk##*/}"; done')
        self.nodes = dict(line.split() for line in found.splitlines())
        self.took("booted")

    def node(self, one: Tracked, part: str) -> str:
        return self.nodes[f"{one.name}-{part}"]

    def begin(self, one: Tracked) -> str:
        """The table, as at the start of a machine; from what a kill left the driver must say what it is.
        With what its reader begins."""
        left, origin, meta = self.left.get(one.name), self.node(one, "origin"), self.node(one, "meta")
        sectors = left.sectors if left else SMALL if one.name == "resized" else one.sectors_max
        one.facts = Facts(sizes=[(0, sectors)])
        words = [] if left else [f"vm_cbt_format {meta} {one.sectors_max}"]
        if one.name == "resized" and not left:
            # It is there when the disk grows, and the replica does not have it.
            words += [f"dd if=/dev/urandom of={origin} bs=64k count=8 seek=700 conv=fsync 2>/dev/null"]
        said = self.machine.run("\n".join(["set -e", *words, *create(one, one.name, sectors, origin, meta)]))
        if not left:
            return "--alike"
        self.compare(left, said, "the kill")
        one.facts.gap, one.facts.carried = left.says.gap, left.says.dirty
        return "--copy" if left.says.gap != "-" else ""

    def read(self, one: Tracked, options="") -> str:
        return (f"vm_cbt_replica /dev/mapper/{one.name} {self.node(one, 'replica')} --until /run/never {options} "
                f">/run/reader-{one.name} 2>&1 & echo $! >/run/pid-{one.name}\n")

    def load(self, one: Tracked, threads: int, first: int, span: int, flush: int, pause=20000, how="") -> str:
        return (f"vm_cut_load {self.rng.getrandbits(31)} {threads} {first} {span} {flush} {pause} /dev/mapper/{one.name} {how} "
                f">>/run/load-{one.name} 2>&1 & echo $! >>/run/loads\n")

    def narrow_loads(self) -> str:
        return "".join(self.load(one, 2, FIRST, SPAN, 64) for one in self.tracked[:4])

    def stop_loads(self) -> None:
        self.machine.run("kill -9 $(cat /run/loads) && rm /run/loads; cat /run/load-*; test -z \"$(cat /run/load-*)\"")

    def run_and_kill(self, number: int) -> None:
        _, extents, small, resized, wide = self.tracked
        anew = not self.left
        options = {one.name: self.begin(one) for one in self.tracked}
        options["map"] += " --slow 20"
        began = self.log.position()
        self.took("tables made")
        self.machine.run("".join(self.read(one, options[one.name]) for one in self.tracked) +
                         ("" if anew else self.narrow_loads()))
        self.machine.wait("for name in {}; do dmsetup status $name | grep -q ' gap - ' || exit 1; done".format(
            " ".join(one.name for one in self.tracked)), 300)
        for one in self.tracked:
            one.facts.closing, one.facts.closed = began, self.log.position()
            if anew or one is wide:
                one.facts.first = one.facts.closed
        self.took("gaps closed")
        watched = (resized, *self.rng.sample((extents, small), self.rng.randrange(3)))
        for one in watched:
            one.facts.watched = self.log.position()
        self.machine.run((self.narrow_loads() if anew else "") +
                         "".join(self.load(one, 1, 0, WATCHED_SPAN, 64, 200000) for one in watched))
        for turn in range(3):
            self.pause(400)
            self.suspend(extents)
            self.pause(400)
            self.suspend(resized, SMALL if resized.facts.sizes[-1][1] == SECTORS else SECTORS, alone=turn == 1)
            # Without a reader for a while: nothing but the map.
            self.machine.run(f"kill -9 $(cat /run/pid-map); sleep 0.3\n"
                             f"{self.read(small, f'--slow {self.rng.choice((0, 20, 100))}')}")
        self.stop_loads()
        self.took("the modes")
        self.retire(wide, held=number % 2 == 0)
        # By hand until it was seen whole: the wide one's reader needs minutes to catch up on a busy host.
        if os.environ.get("HERALD_CUTS_QUIET"):
            self.quieten()
            self.machine.run(self.narrow_loads() + self.load(wide, 2, FIRST, SPAN, 64))
            self.pause(1000)
        self.says_well()
        self.machine.power_cut()
        self.took("the kill")

    def retire(self, wide: Tracked, held: bool) -> None:
        """Regions leave the log whose writes the replica has. `held`: while the flush of the disk that their
        bits wait for is under way."""
        part = (WIDE - 2 * FIRST) // 4
        self.write(wide, WIDE_WRITES // 4, self.load(wide, 4, FIRST, part, 0, 2000, "walk"))
        self.took("the wide one's first regions")
        if held:
            self.stop_loads()
            wide.origin.hold_flushes()
            self.wait(1, lambda: len(wide.origin.held))
            assert wide.origin.held, "nothing was stored that waits for a flush"
            self.took("a flush is under way")
            wide.facts.held = self.log.position()
        self.write(wide, WIDE_WRITES, self.load(wide, 12, FIRST + part, 3 * part, 0, 0, "walk"))
        self.took("the wide one's other regions")

    def write(self, one: Tracked, enough: int, load: str) -> None:
        before = self.log.position()
        self.machine.run(load)
        self.wait(enough, lambda: sum(isinstance(event, Write) and event.disk is one.origin
                                      for event in self.log.events[before:]))

    def took(self, what: str) -> None:
        """Where the time goes, for who finds that it takes long."""
        now = time.monotonic()
        print(f"  {what}: {now - self.since:.1f} s, event {self.log.position()}", flush=True)
        self.since = now

    def pause(self, events: int) -> None:
        """Until about so many events have passed, however slow the host is."""
        began = self.log.position()
        self.wait(self.rng.randrange(events // 2, events * 3 // 2), lambda: self.log.position() - began)

    @staticmethod
    def wait(enough: int, so_far, seconds=120.0) -> None:
        ends = time.monotonic() + seconds
        while so_far() < enough and time.monotonic() < ends:
            time.sleep(0.05)

    def suspend(self, one: Tracked, sectors: int | None = None, alone=False) -> None:
        """Suspended for a while, and resumed; with another size, as `lvextend` and `lvreduce` do it. `alone`:
        with nothing under way that would flush the disk."""
        others = f"$(cat /run/loads /run/pid-{one.name})" if alone else ""
        asked = self.log.position()
        name, before = one.name, one.facts.sizes[-1][1]
        words = [f"{DM} suspend {name}"]
        if sectors:
            # The size is on record before the table is told. Its start is written to, and not flushed, right
            # before: a digest that is taken then would be of what a cut takes back.
            one.facts.sizes.append((asked, sectors))
            words = [f"kill -STOP {others}" if alone else "true", f"dd if=/dev/urandom of=/dev/mapper/{name} bs=4k count=3 seek=4 oflag=direct conv=notrunc 2>/dev/null",
                     f"{DM} reload {name} --table '{table(one, sectors, self.node(one, 'origin'), self.node(one, 'meta'))}'",
                     *words]
        self.machine.run(" && ".join(words))
        suspended = self.log.position()
        time.sleep(0.1 * self.rng.random())
        resuming = self.log.position()
        self.machine.run(f"{DM} resume --noudevsync {name}")
        resumed = self.log.position()
        if alone:
            self.machine.run(f"kill -CONT {others}")
        one.facts.windows.append(Window(asked, suspended, resuming, resumed, bool(sectors and sectors < before)))

    def quieten(self) -> None:
        """All is stored, and what went from the maps is written down."""
        self.stop_loads()
        self.tracked[-1].origin.release_flushes()
        for one in self.tracked:
            self.machine.wait(f"test -z \"$(vm_cbt_map /dev/mapper/{one.name})\"", 300)
        self.machine.run(f"sleep {QUIET_SECONDS}")
        for one in self.tracked:
            one.facts.quiet = self.log.position()
            one.facts.unwatched = one.facts.quiet

    def says_well(self) -> None:
        said = self.machine.run("dmsetup status; for reader in /run/pid-*; do kill -0 $(cat $reader) || exit 1; done; cat /run/reader-*")
        if said.count(" persistence active - gap - ") != len(self.tracked):
            raise AssertionError(f"before the kill: {said}")

    # -- cuts of it --
    def cut(self) -> None:
        events, ended = self.log.events, len(self.log.events)
        flushes = [at for at, event in enumerate(events) if isinstance(event, list) and event]
        origins, metas = ([at for at in flushes if events[at][0].disk in disks] for disks in (
            {one.origin for one in self.tracked}, {one.meta for one in self.tracked}))
        # Most is at stake right before an origin's flush, when all that it covers may still be lost, and
        # right before several blocks of a meta device become durable: one may be, without another.
        several = [at for at in metas if len(events[at]) > 1] or metas
        chosen = {self.rng.choice(group) for group in (origins, several, range(ended)) for _ in range(LOOKS // 3)}
        # Where regions retire a bit that went too early is not hidden by its region: every flush of that disk.
        wide = self.tracked[-1]
        chosen |= {at for at in origins if events[at][0].disk is wide.origin}
        if wide.facts.held:
            chosen |= {self.rng.randrange(wide.facts.held, ended) for _ in range(LOOKS // 3)}
        # Amid every suspend, and right after it.
        often: set[int] = set()
        for window in (window for one in self.tracked for window in one.facts.windows):
            often |= {self.rng.randrange(window.asked, window.suspended + 1), window.suspended, window.resumed,
                       window.resumed + self.rng.randrange(8), window.resumed + self.rng.randrange(64)}
        first = min(one.facts.first for one in self.tracked)
        positions = sorted(position for position in {*chosen, *often, ended} if first <= position <= ended)
        verdict = Verdict(self.log, self.tracked)
        seeds = {position: self.rng.getrandbits(32) for position in positions}
        failed: list[tuple[int, int]] = []
        for position in positions:
            verdict.go(position)
            for attempt in range(LOOKS_EACH + 3 * (position in often)):
                for one in self.tracked:
                    if position < one.facts.first:
                        continue
                    self.looks += 1
                    state = verdict.state(one, self.dice(seeds[position] + attempt, one))
                    if state.problems and (position, attempt) not in failed:
                        failed.append((position, attempt))
                        if len(failed) < 4:
                            print(f"position {position} of {ended}: {one.name}: {state.problems}", flush=True)
        cuts = failed[:3] + [(position, 0) for position in self.rng.sample(positions[:-1], self.per_round - 1)]
        cuts = sorted(dict(cuts[:self.per_round - 1]).items()) + [(ended, 0)]
        self.make(cuts, seeds)
        print(f"{ended} events, {len(flushes)} flushes; {len(positions)} instants looked at, {len(failed)} of them bad; "
              f"{len(cuts)} cuts", flush=True)
        self.took("looked at")

    @staticmethod
    def dice(seed: int, one: Tracked) -> random.Random:
        return random.Random(f"{seed} {one.name}")

    def make(self, cuts: list[tuple[int, int]], seeds: dict[int, int]) -> None:
        """Slices of the disk of cuts. The last cut is the kill, from which the next run begins."""
        verdict = Verdict(self.log, self.tracked)
        self._empty()
        self.slots = []
        with open(self.file, "r+b") as file:
            for number, (position, attempt) in enumerate(cuts):
                verdict.go(position)
                at = number * self.stride
                for one in self.tracked:
                    offsets = (at, at + one.sectors_max, at + 2 * one.sectors_max)
                    at = offsets[2] + MIB
                    if position < one.facts.first:
                        continue
                    state = verdict.state(one, self.dice(seeds[position] + attempt, one))
                    origin, meta, replica = ({**verdict.replay.durable[disk], **over}
                                             for disk, over in zip(one.disks(), state.images))
                    for image, offset in ((origin, offsets[0]), (replica, offsets[1]), (meta, offsets[2])):
                        for sector, content in image.items():
                            os.pwrite(file.fileno(), content, (offset + sector) * SECTOR)
                    self.slots.append(Slot(state, number, offsets))
                    if number == len(cuts) - 1:
                        self.left[one.name] = state
                        self.start |= zip(one.disks(), (origin, meta, replica))
                self.cuts += 1
        # What fails is said at once.
        self.slots.sort(key=lambda slot: not slot.state.problems)
        # Its log is full, and a reader would have to read all of it: it begins anew.
        self.left.pop("wide", None)
        self.start = {disk: image for disk, image in self.start.items() if not disk.name.startswith("wide")}

    def look_at_cuts(self) -> None:
        whole = 0
        for slot in self.slots:
            one, sectors = slot.state.tracked, slot.state.sectors
            lengths = zip("orm", slot.offsets, (one.sectors_max, one.sectors_max, MIB))
            slices = ";".join(f"{part},,,rw,0 {length} linear {self.nodes['cuts']} {offset}" for part, offset, length in lengths)
            words = ["set -e", f"{DM} create --noudevsync --concise '{slices}'"]
            words += create(one, "cut", sectors, "/dev/mapper/o", "/dev/mapper/m")
            # All of the wide one is gigabytes: once for each run, and not in the smallest tier.
            converges = one.name != "wide" or whole < scaled(0, 1, 1)
            whole += one.name == "wide"
            if converges:
                options = "--copy" if slot.state.says.gap != "-" else ""
                words.append(f"vm_cbt_replica /dev/mapper/cut /dev/mapper/r {options}")
            words.append(f"{DM} remove --noudevsync cut o r m")
            status, said = self.machine.attempt("\n".join(words), 600)
            self.compare(slot.state, said, f"cut {slot.cut}")
            if status:
                raise AssertionError(f"cut {slot.cut}, {one.name}: status {status}: {said}")
            if converges:
                self.converge(slot, said.splitlines()[-1])
            self.took(f"  cut {slot.cut}, position {slot.state.position}, {one.name}: gap {slot.state.says.gap}, "
                      f"{len(slot.state.differing)} blocks differ, {len(slot.state.says.dirty)} are dirty")

    def compare(self, state: State, said: str, what: str) -> None:
        """What the driver says of it against what is."""
        self.booted += 1
        what = f"{what}, position {state.position}, {state.tracked.name}"
        allowed = state.tracked.facts.gaps(state.position)
        status = re.search(r"^\d+ \d+ cbt .* gap (\S+) .*$", said, re.M)
        if not status:
            raise AssertionError(f"{what}: {said}")
        gap = status[1]
        dirty = {block for first, last in re.findall(r"^(\d+)-(\d+)$", said, re.M)
                 for block in range(int(first), int(last) + 1)}
        if state.differing - dirty:
            raise Uncovered(f"{what}: blocks differ and are not dirty: {sorted(state.differing - dirty)[:8]}; {status[0]}")
        if what.startswith("cut") and gap not in allowed:
            raise Uncovered(f"{what}: gap {gap}, where there may be {sorted(allowed)}; {status[0]}")
        if (gap, dirty) != (state.says.gap, state.says.dirty) or " persistence active " not in said:
            raise Uncovered(f"{what}: not as the document says: gap {gap} for {state.says.gap}, "
                            f"{sorted(dirty ^ state.says.dirty)[:8]} of {len(dirty)} blocks; {status[0]}")
        if state.problems:
            raise Uncovered(f"{what}: {state.problems}")

    def converge(self, slot: Slot, said: str) -> None:
        state = slot.state
        read = {name: int(value) for name, value in re.findall(r"(\w+) (\d+)", said)}
        last = min(BLOCK_SECTORS, state.sectors % BLOCK_SECTORS or BLOCK_SECTORS)
        most = len(state.says.dirty) * BLOCK_SECTORS * SECTOR
        if max(state.says.dirty, default=-1) * BLOCK_SECTORS + BLOCK_SECTORS > state.sectors:
            most -= (BLOCK_SECTORS - last) * SECTOR
        if read["scanned_blocks"] != len(state.says.dirty) or read["read_bytes"] != most or read["reread_slots"]:
            raise Uncovered(f"cut {slot.cut}, {state.tracked.name}: {len(state.says.dirty)} blocks are dirty, {said}")
        origin, replica = (content(self.file, offset, state.sectors) for offset in slot.offsets[:2])
        if origin != replica:
            raise Uncovered(f"cut {slot.cut}, position {state.position}, {state.tracked.name}: the replica is not the disk: {said}")
        self.converged += 1
        self.scanned += read["scanned_blocks"]
        self.gaps += state.says.gap != "-"


def table(one: Tracked, sectors: int, origin: str, meta: str) -> str:
    return f"0 {sectors} cbt {origin} {meta} {len(one.options)} {' '.join(one.options)}"


def create(one: Tracked, name: str, sectors: int, origin: str, meta: str) -> list[str]:
    """Commands that make a table, and then say what it knows."""
    return [f"{DM} create --noudevsync {name} --table '{table(one, sectors, origin, meta)}'", f"dmsetup status {name}",
            f"vm_cbt_map /dev/mapper/{name}"]


def content(path: pathlib.Path, first: int, sectors: int) -> str:
    """SHA-256 of what is not zero of a slice, each piece with its place: holes and zeroes are alike."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        begin, end = first * SECTOR, (first + sectors) * SECTOR
        at = begin
        while at < end:
            try:
                at = max(at, os.lseek(file.fileno(), at, os.SEEK_DATA))
            except OSError:
                break
            # Pieces at whole pages from the slice's start, so that both slices have the same ones.
            at -= (at - begin) % 4096
            piece = os.pread(file.fileno(), min(4096, end - at), at) if at < end else b""
            if piece.strip(b"\0"):
                digest.update(f"{at - begin}".encode() + piece)
            at += 4096
    return digest.hexdigest()
