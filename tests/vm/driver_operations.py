#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What an administrator, a broken disk and a broken meta device do to the driver, each under load: tags and
holds over two disks, a disk that hangs and comes back, errors, a disk that shrinks and grows, one whose
table goes while it is read; meta devices that fail, are slow, are foreign, and disks that were changed
while nobody looked. Each ends by itself, and the replica is the disk.

Usage: driver_operations.py [LINE [NAME...]] (default: 6.1, all; see OPERATIONS)"""
import os
import random
import sys
import time

import driver
from driver_full import PROGRAMS, WRITTEN_SECTORS, Disks
from machine import BUILD, Disk, Machine, scaled

DISK_MIB = 16
META_MIB = 8
SECTORS = DISK_MIB << 11
DM = "DM_DISABLE_UDEV=1 dmsetup"


def make(machine: Machine, name: str, table: str) -> str:
    machine.run(f"printf '{table}\\n' | {DM} create --noudevsync {name}")
    return f"/dev/mapper/{name}"


def swap(machine: Machine, name: str, table: str) -> None:
    """Another table for a device that is in use, as `lvextend` and `dmsetup` do it."""
    machine.run(f"{DM} reload {name} --table '{table}' && {DM} suspend --noflush --nolockfs {name} && "
                f"{DM} resume --noudevsync {name}")


def linear(node: str, sectors=SECTORS) -> str:
    return f"0 {sectors} linear {node} 0"


class Operation:
    """One tracked disk, /dev/mapper/tracked, and its replica."""

    def __init__(self, machine: Machine, disks: list[str], seed: int):
        self.machine, (self.origin, self.other, self.meta) = machine, disks
        self.replica = Disks(machine, self.origin, seed, scaled(400, 1000, 5000))

    def track(self, origin: str, meta="-", *options: str, copy=True) -> None:
        self.replica.node = driver.create(self.machine, "tracked", origin, meta, *options)
        if copy:
            self.machine.run("rm -f /run/replica")
            self.replica.follow("--copy")

    def untrack(self) -> None:
        driver.remove(self.machine, "tracked")

    def exact(self, what: str, beside="") -> dict[str, int]:
        said = self.replica.follow("", beside)
        self.replica.check(what, said)
        return said

    def same(self, what: str) -> None:
        node = self.replica.node
        on_disk, replica = (self.machine.run(f"{command} | sha256sum") for command in (
            f"blockdev --flushbufs {node}; dd if={node} bs=64k iflag=direct 2>/dev/null", "cat /run/replica"))
        if on_disk != replica:
            raise AssertionError(f"{what}: the replica is not the disk")

    def says(self, *words: str) -> None:
        said = driver.status(self.machine, "tracked")
        for word in words:
            if f" {word} " not in said + " ":
                raise AssertionError(f"no '{word}' in: {said}")

    def poke(self, node: str, mib: int) -> None:
        self.machine.run(f"dd if=/dev/urandom of={node} bs=64k count=1 seek={mib * 16} "
                         "conv=notrunc,fsync 2>/dev/null")

    def close_gap(self) -> None:
        self.machine.run("rm -f /run/replica")
        self.replica.follow("--copy")
        self.says("gap -")


def group(it: Operation) -> None:
    nodes = [driver.create(it.machine, f"tracked{number}", node) for number, node in enumerate((it.origin, it.other))]
    print(it.machine.run(f"vm_cbt_group {' '.join(nodes)}"), flush=True)
    for number in range(2):
        driver.remove(it.machine, f"tracked{number}")


def hung(it: Operation) -> None:
    low = make(it.machine, "low", linear(it.origin))
    it.track(low, "-", "unresolved_ms", "300")
    # Those that hang turn unresolved, and their ranges are told again when they end at last.
    said = it.exact("writes that hung", f"""
        {{ {DM} suspend low; {it.replica.load()} & load=$!; sleep 3; dmsetup status tracked >/run/hung
        {DM} resume low; wait $load; }}""")
    before = it.machine.run("cat /run/hung")
    if " unresolved 0" in before or not said["reread_slots"]:
        raise AssertionError(f"nothing hung, or was not told again: {before}; {said}")
    it.untrack()
    driver.remove(it.machine, "low")


def errors(it: Operation) -> None:
    at = WRITTEN_SECTORS + 1024
    rest = SECTORS - at - 1
    low = make(it.machine, "low", f"0 {at} linear {it.origin} 0\\n{at} 1 error\\n{at + 1} {rest} linear {it.origin} {at + 1}")
    it.replica.node = driver.create(it.machine, "tracked", low)
    # The replica cannot read the sector that cannot be read; what failed is told, and goes no further.
    status, said = it.machine.attempt("dd if=/dev/zero of=/dev/mapper/tracked bs=4k count=1 conv=notrunc,fsync "
                                      f"seek={at // 8} 2>&1")
    if status == 0:
        raise AssertionError(f"written where nothing can be: {said}")
    it.machine.run(it.replica.load(), timeout=300)
    it.says("aborted 1")
    it.untrack()
    driver.remove(it.machine, "low")


def resize(it: Operation) -> None:
    small = WRITTEN_SECTORS + 72
    table = "0 {sectors} cbt {origin} -"
    make(it.machine, "tracked", table.format(sectors=small, origin=it.origin))
    it.replica.node = "/dev/mapper/tracked"
    it.machine.run("rm -f /run/replica")
    it.replica.follow("--copy")
    swaps = "; ".join(f"{DM} reload tracked --table '{table.format(sectors=sectors, origin=it.origin)}' && "
                      f"{DM} suspend tracked && {DM} resume --noudevsync tracked || exit 1; sleep 0.3"
                      for sectors in (SECTORS, small, SECTORS))
    it.replica.follow("", f"{{ {it.replica.load()} & load=$!; {swaps}; wait $load; }}")
    # What the disk grew by was dirty as a whole.
    it.same("a disk that shrank and grew")
    it.untrack()


def gone(it: Operation) -> None:
    """The table goes, or is exchanged, under a reader: it ends with an error of the call, and nothing else."""
    it.track(it.origin)
    table = it.machine.run("dmsetup table tracked")
    status, said = it.machine.attempt(f"""
        rm -f /run/stop
        vm_cbt_replica /dev/mapper/tracked /run/replica --until /run/stop >/run/said 2>&1 & reader=$!
        sleep 0.5
        {DM} reload tracked --table '{linear(it.origin)}' && {DM} suspend tracked && {DM} resume --noudevsync tracked || exit 99
        wait $reader; status=$?; cat /run/said; exit $status""")
    if status in (0, 99) or "No such device" not in said:
        raise AssertionError(f"status {status} after the table went: {said}")
    it.poke("/dev/mapper/tracked", 1)
    swap(it.machine, "tracked", table)
    it.machine.run("rm -f /run/replica")
    it.replica.follow("--copy")
    it.exact("tracked again", it.replica.load())
    it.untrack()


def meta(it: Operation) -> None:
    machine = it.machine
    machine.run(f"vm_cbt_format {it.meta} {SECTORS}")
    it.track(it.origin, it.meta, copy=False)
    it.says("gap meta-new", "persistence active")
    it.close_gap()
    machine.run(it.replica.load(), timeout=300)
    it.untrack()
    it.track(it.origin, it.meta, copy=False)
    it.says("gap -", "persistence active")
    it.exact("a clean stop with a dirty map")
    it.untrack()
    # Behind its back, at the disk's start, which is watched.
    machine.run(f"dd if=/dev/urandom of={it.origin} bs=4k count=1 seek=2 conv=notrunc,fsync 2>/dev/null")
    for _ in range(2):
        it.track(it.origin, it.meta, copy=False)
        it.says("gap changed-untracked")
        it.untrack()
    it.track(it.origin, it.meta)
    it.says("gap -")
    table = machine.run("dmsetup table tracked")
    swap(machine, "tracked", linear(it.origin))
    it.poke("/dev/mapper/tracked", 3)
    swap(machine, "tracked", table)
    it.says("gap not-detached")
    it.close_gap()
    it.untrack()


def meta_breaks(it: Operation) -> None:
    machine = it.machine
    machine.run(f"vm_cbt_format {it.meta} {SECTORS}")
    low = make(machine, "low", linear(it.meta, META_MIB << 11))
    it.track(it.origin, low)
    it.says("gap -", "persistence active")
    swap(machine, "low", f"0 {META_MIB << 11} error")
    it.poke(it.replica.node, 9)
    it.says("persistence given-up meta-write-failed")
    swap(machine, "low", linear(it.meta, META_MIB << 11))
    it.exact("writes after the meta device failed", it.replica.load())
    it.untrack()
    it.track(it.origin, low, copy=False)
    it.says("gap persistence-lost", "persistence active")
    it.close_gap()
    machine.run(f"{DM} suspend low")
    began = time.monotonic()
    it.poke(it.replica.node, 5)
    waited = time.monotonic() - began
    it.says("persistence given-up meta-slow")
    print(f"a meta device that hangs: waited {waited:.1f} s", flush=True)
    machine.run(f"{DM} resume low")
    it.untrack()
    # What is no meta device is not written to.
    before = machine.run(f"sha256sum <{it.other}")
    it.track(it.origin, it.other, copy=False)
    it.says("gap meta-unreadable", "persistence given-up meta-unreadable")
    it.poke(it.replica.node, 2)
    it.untrack()
    if machine.run(f"blockdev --flushbufs {it.other}; sha256sum <{it.other}") != before:
        raise AssertionError("a device that is no meta device was written to")
    driver.remove(machine, "low")


def cuts(it: Operation) -> None:
    """Origin and meta device fail at one time, amid a load, as at a power cut: what the replica lacks is dirty."""
    machine = it.machine
    machine.run(f"vm_cbt_format {it.meta} {SECTORS}")
    lows = {"low": linear(it.origin), "lowmeta": linear(it.meta, META_MIB << 11)}
    for name, table in lows.items():
        make(machine, name, table)
    it.track("/dev/mapper/low", "/dev/mapper/lowmeta")
    scanned = 0
    for number in range(scaled(3, 5, 50)):
        it.replica.seed += 1
        # Not in the watched ranges, where a cut cannot be told from a change.
        machine.run(f"""
            ( while dd if=/dev/urandom of=/dev/mapper/tracked bs=64k count=1 conv=notrunc,fsync \\
                seek=$((20 + RANDOM % 200)) 2>/dev/null; do :; done ) & load=$!
            sleep {0.5 + number * 0.1}
            for name in low lowmeta; do
                {DM} reload $name --table "0 $(blockdev --getsz /dev/mapper/$name) error"
                {DM} suspend --noflush --nolockfs $name && {DM} resume --noudevsync $name || exit 1
            done
            wait $load""", timeout=60)
        it.untrack()
        for name, table in lows.items():
            swap(machine, name, table)
        it.track("/dev/mapper/low", "/dev/mapper/lowmeta", copy=False)
        it.says("gap -", "persistence active")
        # Regions that were hot are read as a whole.
        scanned += it.replica.follow()["scanned_blocks"]
        it.same(f"cut {number}")
    if not scanned:
        raise AssertionError("nothing was dirty after any cut")
    print(f"cuts: {scanned} blocks scanned", flush=True)
    it.untrack()
    for name in lows:
        driver.remove(machine, name)


OPERATIONS = {name.__name__: name for name in (group, hung, errors, resize, gone, meta, meta_breaks, cuts)}


def main() -> int:
    line = sys.argv[1] if len(sys.argv) > 1 else "6.1"
    seed = int(os.environ.get("HERALD_SEED") or random.randrange(1 << 31))
    kernel = driver.kernel_or_skip(line)
    initramfs = driver.with_driver(kernel)
    initramfs.program(*(BUILD / f"tests/vm_{name}" for name in ("cbt_group", "cbt_format", *PROGRAMS)))
    disks = [Disk("virtio-blk", DISK_MIB, serial="origin"), Disk("virtio-blk", DISK_MIB, serial="other"),
             Disk("virtio-blk", META_MIB, serial="meta")]
    print(f"{kernel.release}: seed {seed} (repeat with HERALD_SEED={seed})", flush=True)
    with Machine(f"driver-operations-{line}", initramfs, disks, processors=4) as machine:
        # Errors of a disk are what some of these are about.
        machine.tolerate("Buffer I/O error", "I/O error, dev dm-", "lost async page write")
        machine.boot()
        driver.load(machine)
        for name in sys.argv[2:] or OPERATIONS:
            began = time.monotonic()
            OPERATIONS[name](Operation(machine, [machine.node(disk) for disk in disks], seed))
            print(f"{name}: {time.monotonic() - began:.1f} s", flush=True)
        machine.run("rmmod dm_cbt")
        machine.shut_down()
    return 0


if __name__ == "__main__":
    sys.exit(main())
