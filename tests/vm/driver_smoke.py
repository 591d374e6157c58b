#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The driver from its load to its removal, on one kernel: a file system made, filled and read above it
is the same below it once it is gone, and the kernel has nothing to complain of.

Usage: driver_smoke.py LINE (a line of kernels.LINES)"""
import sys
import time

import driver
from initramfs import Initramfs
from machine import BUILD, Disk, Machine

DISK_MIB = 64
META_MIB = 8
# 60 files of 4 KiB to 100 KiB, a third of them deleted again, the rest overwritten in their middle.
FILL = """
set -e
for number in $(seq 1 60); do
    dd if=/dev/urandom of=/mnt/file$number bs=4k count=$((number % 25 + 1)) 2>/dev/null
done
sync
for number in $(seq 1 3 60); do rm /mnt/file$number; done
for number in $(seq 2 3 60); do
    dd if=/dev/urandom of=/mnt/file$number bs=512 seek=3 count=2 conv=notrunc 2>/dev/null
done
sync
"""
SUMS = "find /mnt -type f | sort | xargs sha256sum | sha256sum"


def from_load_to_removal(machine: Machine, origin: str, meta: str) -> None:
    """Once with each kind of table, so that an activation after another is among it."""
    driver.load(machine)
    machine.run(f"vm_cbt_format {meta} {driver.sectors(machine, origin)}")
    for place in (meta, meta, "-"):
        node = driver.create(machine, "tracked", origin, place)
        machine.run(f"mkfs.ext4 -q {node} && mount {node} /mnt")
        machine.run(FILL)
        sums = machine.run(SUMS)
        said = driver.status(machine, "tracked")
        if place != "-" and " persistence active " not in said:
            raise AssertionError(f"meta {place}: not persistent: {said}")
        machine.run("umount /mnt")
        driver.remove(machine, "tracked")
        # Straight from the disk: what passed the driver has to be there.
        machine.run(f"mount {origin} /mnt")
        below = machine.run(SUMS)
        machine.run("umount /mnt")
        if sums != below:
            raise AssertionError(f"meta {place}: {sums} above the driver, {below} below it")
        print(f"meta {place}: the same above and below; {said}", flush=True)
    machine.run("rmmod dm_cbt")


def smoke(initramfs: Initramfs, name: str) -> None:
    began = time.monotonic()
    disks = [Disk("virtio-blk", DISK_MIB, serial="origin"), Disk("virtio-blk", META_MIB, serial="meta")]
    with Machine(name, initramfs, disks, memory_mib=768) as machine:
        print(f"{machine.kernel.release}: ready in {machine.boot():.1f} s", flush=True)
        from_load_to_removal(machine, machine.node(disks[0]), machine.node(disks[1]))
        machine.shut_down()
    print(f"{initramfs.kernel.release}: from power on to power off {time.monotonic() - began:.1f} s", flush=True)


def main() -> int:
    line = sys.argv[1]
    initramfs = driver.with_driver(driver.kernel_or_skip(line)).program(BUILD / "tests/vm_cbt_format")
    smoke(initramfs, f"driver-smoke-{line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
