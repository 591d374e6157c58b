#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the driver's reader made of the slots is what the kernel's own log of writes makes of the disk: the
driver above dm-log-writes, both replayed, compared at moments that are quiescent and flushed, and with the
disk itself. Sectors written through (FUA) are logged out of order: of these the disk alone can tell.

Usage: driver_oracle.py [SEED] (default: HERALD_SEED, or a new one, which is printed)"""
import os
import random
import sys

import driver
import write_log
from machine import BUILD, Disk, Machine, scaled

DISK_MIB = 8
SECTORS = DISK_MIB << 11
FORCED = 16


def main() -> int:
    seed = int(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("HERALD_SEED") or random.randrange(1 << 31))
    rounds, writes = scaled(3, 5, 20), scaled(800, 1500, 5000)
    kernel = driver.kernel_or_skip("6.1")
    print(f"{kernel.release}: seed {seed} (repeat with driver_oracle.py {seed})", flush=True)
    initramfs = driver.with_driver(kernel).modules("dm_log_writes")
    initramfs.program(*(BUILD / f"tests/vm_{name}" for name in ("cbt_replica", "sector_load")))
    # An entry is a sector and its data, of 8 KiB on average.
    disks = [Disk("virtio-blk", DISK_MIB, serial="origin"),
             Disk("virtio-blk", 16 + rounds * writes // 64, serial="log"),
             Disk("virtio-blk", DISK_MIB * rounds, serial="replicas")]
    with Machine(f"driver-oracle-{kernel.line}", initramfs, disks) as machine:
        machine.boot()
        driver.load(machine)
        origin, log, replicas = map(machine.node, disks)
        machine.run("DM_DISABLE_UDEV=1 dmsetup create --noudevsync logged "
                    f"--table '0 {SECTORS} log-writes {origin} {log}'")
        node = driver.create(machine, "tracked", "/dev/mapper/logged")
        machine.run(f"vm_cbt_replica {node} /run/replica --copy", timeout=300)
        for number in range(rounds):
            # Of each two rounds one forces every 16th write to the medium.
            sums = machine.run(f"""
                rm -f /run/stop
                vm_cbt_replica {node} /run/replica --until /run/stop >/run/said 2>&1 & reader=$!
                vm_sector_load {seed + number} {writes} 8 {SECTORS} {number % 2 * FORCED} {node} || exit 1
                dd if=/dev/zero of={node} count=0 conv=notrunc,fsync 2>/dev/null || exit 1
                dmsetup message logged 0 mark round{number}
                touch /run/stop
                wait $reader || {{ cat /run/said; exit 1; }}
                dd if=/run/replica of={replicas} bs=1M seek={number * DISK_MIB} oflag=direct conv=notrunc 2>/dev/null || exit 1
                sha256sum </run/replica
                dd if={origin} bs=1M count={DISK_MIB} iflag=direct 2>/dev/null | sha256sum""", timeout=600).split()
            if sums[0] != sums[2]:
                raise AssertionError(f"round{number}: the replica is not what the disk holds")
        print(driver.status(machine, "tracked"), flush=True)
        driver.remove(machine, "tracked")
        driver.remove(machine, "logged")
        machine.run("rmmod dm_cbt")
        machine.shut_down()
        compared = 0
        held = disks[2].image.read_bytes()
        for name, image, forced, logged in write_log.images_at_marks(disks[1].image, DISK_MIB << 20):
            # The target marks its own end, too.
            if not name.startswith("round"):
                continue
            at = int(name.removeprefix("round")) * len(image)
            replica = held[at:at + len(image)]
            wrong, explained = write_log.differences(image, replica, forced)
            if wrong:
                raise AssertionError(f"{name}: {len(wrong)} sectors of the replica are nothing that the log of {logged} "
                                     f"writes makes, the first is {wrong[0]}")
            print(f"{name}: {logged} writes logged below, the same above and on the disk; {len(forced)} sectors were "
                  f"written through, {explained} of them logged out of order", flush=True)
            image[:] = replica
            compared += 1
    if compared != rounds or logged < rounds * writes:
        raise AssertionError(f"{compared} of {rounds} marks, {logged} writes: the log is not whole")
    return 0


if __name__ == "__main__":
    sys.exit(main())
