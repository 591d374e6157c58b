#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Rings that overflow: with no reader, with a slow one, with one that dies between draining and releasing,
with the smallest rings there are and reservations that fail on four processors at once. The replica
comes to be the disk by itself, and nothing outside of what was written is read from it.

Usage: driver_full.py [SEED] (default: HERALD_SEED, or a new one, which is printed)"""
import os
import random
import re
import sys

import driver
from initramfs import Initramfs
from machine import BUILD, Disk, Machine, scaled

DISK_MIB = 16
# The load's; the rest of the disk must never be read again.
WRITTEN_SECTORS = 8192
BLOCK_SECTORS = 128
SMALLEST = ("slots", "16", "payload_bytes", str(2 << 20))
PROGRAMS = ("cbt_replica", "sector_load")
FOLLOW = "vm_cbt_replica {node} /run/replica"


class Disks:
    def __init__(self, machine: Machine, origin: str, seed: int, writes: int):
        self.machine, self.origin, self.seed, self.writes = machine, origin, seed, writes
        self.node = ""

    def track(self, *options: str) -> None:
        if self.node:
            driver.remove(self.machine, "tracked")
        self.node = driver.create(self.machine, "tracked", self.origin, "-", *options)
        self.follow("--copy")

    def load(self) -> str:
        self.seed += 1
        return f"vm_sector_load {self.seed} {self.writes} 8 {WRITTEN_SECTORS} 16 {self.node}"

    def follow(self, options="", beside="") -> dict[str, int]:
        """What the replica's reader says at its end; `beside` is run meanwhile, and its end told to it."""
        self.machine.run("rm -f /run/stop")
        follow = f"{FOLLOW.format(node=self.node)} {options}"
        said = self.machine.run(follow if not beside else f"""
            {follow} --until /run/stop >/run/said 2>&1 & reader=$!
            sleep 0.2
            {beside} || exit 1
            touch /run/stop
            wait $reader; status=$?
            cat /run/said
            exit $status""", timeout=400)
        return {name: int(value) for name, value in re.findall(r"(\w+) (\d+)", said.splitlines()[-1])}

    def check(self, what: str, said: dict[str, int]) -> None:
        blocks = WRITTEN_SECTORS // BLOCK_SECTORS
        if said["scanned_blocks"] and said["scanned_block_max"] >= blocks:
            raise AssertionError(f"{what}: block {said['scanned_block_max']} was read, and never written")
        on_disk, replica = (self.machine.run(f"{command} | sha256sum") for command in (
            f"blockdev --flushbufs {self.node}; dd if={self.node} bs=64k iflag=direct 2>/dev/null", "cat /run/replica"))
        if on_disk != replica:
            raise AssertionError(f"{what}: the replica is not the disk: {said}")
        print(f"{what}: exact; {said['slots']} slots, {said['modes']} changes of mode, {said['reread_slots']} slots "
              f"without data, {said['scanned_blocks']} blocks scanned", flush=True)


def overflow(machine: Machine, disks: Disks) -> None:
    disks.track(*SMALLEST)
    machine.run(disks.load(), timeout=300)
    said = disks.follow()
    if not said["scanned_blocks"] or said["read_bytes"] > (WRITTEN_SECTORS + 64) * 512:
        raise AssertionError(f"no reader: scanned {said}")
    disks.check("no reader, smallest rings", said)
    disks.check("slow reader, smallest rings", disks.follow("--slow 30", disks.load()))
    disks.check("quick reader, smallest rings", disks.follow("", disks.load()))
    # Of payload alone there is too little: slots without data.
    disks.track("slots", "4096", "payload_bytes", str(2 << 20))
    said = disks.follow("--slow 300", disks.load())
    if not said["reread_slots"]:
        raise AssertionError(f"payload full: no slot without data: {said}")
    disks.check("slow reader, little payload", said)
    disks.track()
    for number in range(3):
        print(machine.run(f"""
            {disks.load()} & load=$!
            {FOLLOW.format(node=disks.node)} --until /run/never --die-after {100 + 200 * number} || exit 1
            wait $load""", timeout=300), flush=True)
    disks.check("readers that died between draining and releasing", disks.follow())
    print(driver.status(machine, "tracked"))


def rings_overflow(initramfs: Initramfs, seed: int, writes: int, rounds: int) -> None:
    disk = Disk("virtio-blk", DISK_MIB, serial="full")
    with Machine(f"driver-full-{initramfs.kernel.line}", initramfs, [disk], processors=4) as machine:
        machine.boot()
        driver.load(machine)
        disks = Disks(machine, machine.node(disk), seed, writes)
        for _ in range(rounds):
            overflow(machine, disks)
        driver.remove(machine, "tracked")
        machine.run("rmmod dm_cbt")
        machine.shut_down()


def main() -> int:
    seed = int(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("HERALD_SEED") or random.randrange(1 << 31))
    kernel = driver.kernel_or_skip("6.1")
    initramfs = driver.with_driver(kernel).program(*(BUILD / f"tests/vm_{name}" for name in PROGRAMS))
    print(f"{kernel.release}: seed {seed} (repeat with driver_full.py {seed})", flush=True)
    rings_overflow(initramfs, seed, scaled(1500, 3000, 20000), scaled(1, 1, 5))
    return 0


if __name__ == "__main__":
    sys.exit(main())
