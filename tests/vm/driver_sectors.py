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


def boundaries_are_images(initramfs: Initramfs, seed: int, writes: int, options=(), processors=2, name="sectors") -> None:
    disks = [Disk("virtio-blk", DISK_MIB, serial=f"{name}-{number}") for number in (1, 2)]
    with Machine(f"driver-{name}-{initramfs.kernel.line}", initramfs, disks, memory_mib=1024,
                 processors=processors) as machine:
        machine.boot()
        driver.load(machine)
        nodes = [driver.create(machine, f"tracked{number}", machine.node(disk), "-", *options)
                 for number, disk in enumerate(disks)]
        print(machine.run(f"vm_cbt_sectors {seed} {writes} {THREADS} {BOUNDARIES} {' '.join(nodes)}", timeout=1500),
              flush=True)
        for number in range(len(disks)):
            driver.remove(machine, f"tracked{number}")
        machine.run("rmmod dm_cbt")
        machine.shut_down()


def main() -> int:
    seed = int(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("HERALD_SEED") or random.randrange(1 << 31))
    kernel = driver.kernel_or_skip("6.1")
    initramfs = driver.with_driver(kernel).program(BUILD / "tests/vm_cbt_sectors")
    for number in range(scaled(1, 2, 25)):
        print(f"{kernel.release}: seed {seed + number} (repeat with driver_sectors.py {seed + number})", flush=True)
        boundaries_are_images(initramfs, seed + number, scaled(3000, 6000, 20000), processors=(2, 4)[number % 2])
    return 0


if __name__ == "__main__":
    sys.exit(main())
