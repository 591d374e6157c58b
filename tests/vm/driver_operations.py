#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What an administrator, a broken disk and a broken meta device do to the driver, each under load: tags and
holds over two disks, disks that hang, fail, refuse or delay writes, suspends, a disk that shrinks and grows
or is taken out, one whose table goes while it is read; meta devices that fail, are slow, are foreign,
volumes that LVM extends, boots without the module, and disks that were changed while nobody looked.
Each ends by itself, and the replica is the disk.

Usage: driver_operations.py [--line LINE] [--part NUMBER/COUNT] [NAME...] (default: 6.1, all; see OPERATIONS)"""
import argparse
import os
import random
import sys
import time

import driver
import operations_of_disks
import operations_of_meta
from driver_full import PROGRAMS
from machine import BUILD, Disk, Machine, scaled
from operation import DISK_MIB, DM_SCRIPT, META_MIB, Durations, Operation

OPERATIONS = {name.__name__: name for name in operations_of_disks.ALL + operations_of_meta.ALL}


def chosen() -> tuple[str, list[str]]:
    parser = argparse.ArgumentParser()
    parser.add_argument("--line", default="6.1")
    parser.add_argument("--part", default="1/1", help="every COUNT-th operation, from the NUMBER-th on")
    parser.add_argument("names", nargs="*", metavar="NAME")
    words = parser.parse_args()
    number, count = map(int, words.part.split("/"))
    return words.line, words.names or list(OPERATIONS)[number - 1::count]


def main() -> int:
    line, names = chosen()
    seed = int(os.environ.get("HERALD_SEED") or random.randrange(1 << 31))
    kernel = driver.kernel_or_skip(line)
    initramfs = driver.with_driver(kernel).modules("dm_flakey", "dm_delay")
    initramfs.program(*(BUILD / f"tests/vm_{name}" for name in ("cbt_group", "cbt_format", *PROGRAMS)))
    disks = [Disk("virtio-blk", DISK_MIB, serial="origin"), Disk("virtio-blk", DISK_MIB, serial="other"),
             Disk("virtio-blk", META_MIB, serial="meta")]
    print(f"{kernel.release}: seed {seed} (repeat with HERALD_SEED={seed})", flush=True)
    durations = Durations()
    with Machine(f"driver-operations-{line}-{names[0]}", initramfs, disks, processors=4) as machine:
        # Errors of a disk are what some of these are about.
        machine.tolerate("Buffer I/O error", "I/O error, dev dm-", "lost async page write")
        machine.boot()
        machine.run(f"cat >/run/dm <<'END'\n{DM_SCRIPT}\nEND")
        driver.load(machine)
        for number in range(scaled(1, 1, 100)):
            for name in names:
                began = time.monotonic()
                operation = Operation(machine, [machine.node(disk) for disk in disks], seed + 1000 * number, durations)
                OPERATIONS[name](operation)
                durations.take(machine)
                print(f"{name}: {time.monotonic() - began:.1f} s", flush=True)
            machine.look_for_complaints()
        machine.run("rmmod dm_cbt")
        machine.shut_down()
    print(f"dmsetup: {durations}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
