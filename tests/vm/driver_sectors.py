#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every boundary of the driver's slots is an image of a power cut, over two disks at once: sectors that say
what they are, under a random load of many threads, much of it over itself; see guest/cbt_sectors.cpp.

Usage: driver_sectors.py [SEED] (default: HERALD_SEED, or a new one, which is printed)"""
import os
import random
import sys

import driver
from initramfs import Initramfs
from machine import BUILD, Disk, Machine, scaled

DISK_MIB = 8
BOUNDARIES = 1000
THREADS = 8


# Table options, and whether readers pause now and then. In the second table payload overflows first (mode
# extents), in the third slots do (mode map): the latch is what keeps the other boundaries exact.
PAUSE_MS_MAX = 10000
TABLES = (((), 0), (("slots", "4096", "payload_bytes", str(2 << 20)), PAUSE_MS_MAX), (("slots", "128"), PAUSE_MS_MAX))


def boundaries_are_images(machine: Machine, disks: list[Disk], seed: int, writes: int, boundaries=BOUNDARIES) -> None:
    for options, pause_ms in TABLES:
        # Zeroes: the program knows of no earlier content.
        nodes = []
        for number, disk in enumerate(disks):
            origin = machine.node(disk)
            machine.run(f"dd if=/dev/zero of={origin} bs=1M count={DISK_MIB} oflag=direct 2>/dev/null")
            nodes.append(driver.create(machine, f"tracked{number}", origin, "-", *options))
        print(machine.run(f"vm_cbt_sectors {seed} {writes} {THREADS} {boundaries} {pause_ms} {' '.join(nodes)}",
                          timeout=1500), flush=True)
        for number in range(len(disks)):
            driver.remove(machine, f"tracked{number}")


def in_a_machine(initramfs: Initramfs, seed: int, writes: int, processors: int) -> None:
    disks = [Disk("virtio-blk", DISK_MIB, serial=f"sectors-{number}") for number in (1, 2)]
    with Machine(f"driver-sectors-{initramfs.kernel.line}", initramfs, disks, memory_mib=1024,
                 processors=processors) as machine:
        machine.boot()
        driver.load(machine)
        boundaries_are_images(machine, disks, seed, writes)
        machine.run("rmmod dm_cbt")
        machine.shut_down()


def main() -> int:
    seed = int(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("HERALD_SEED") or random.randrange(1 << 31))
    kernel = driver.kernel_or_skip("6.1")
    initramfs = driver.with_driver(kernel).program(BUILD / "tests/vm_cbt_sectors")
    for number in range(scaled(1, 2, 25)):
        print(f"{kernel.release}: seed {seed + number} (repeat with driver_sectors.py {seed + number})", flush=True)
        in_a_machine(initramfs, seed + number, scaled(3000, 6000, 20000), processors=(2, 4)[number % 2])
    return 0


if __name__ == "__main__":
    sys.exit(main())
