#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The whole machine loses its power in the middle of load, replicator and server with it, on disks that
keep, drop or tear what was not flushed. It boots again from the same disks: the gap is named, a digest compare follows and
sends little, and a point taken then restores exactly. Points from before the cut are as they were."""
import os
import pathlib
import random
import sys
import tempfile
import time

import kernels
from initramfs import Initramfs
from lossy_disk import LossyDisk
from machine import Disk, Machine, kernel_lines, scaled, skip_unless_possible
from site_in_guest import Site, with_site

MIB = 48
# Buffered and synchronous writes over each other, files made and removed; then the same anew.
LOAD = """
number=0
while :; do
    number=$((number + 1))
    dd if=/dev/urandom of=/mnt/source/file$((number % 16)) bs=16k count=$((number % 5 * 8 + 1)) 2>/dev/null
    test $((number % 3)) = 0 && sync -f /mnt/source/
    test $((number % 7)) = 0 && rm -f /mnt/source/file$((number * 5 % 16))
done
"""


def seeded() -> random.Random:
    seed = int(os.environ.get("HERALD_SEED") or int.from_bytes(os.urandom(4), "little"))
    print(f"seed {seed} (repeat with HERALD_SEED={seed})", flush=True)
    return random.Random(seed)


def cut_and_resume(machine: Machine, source: Disk, site: Site, rng: random.Random, before, number: int):
    node = machine.node(source)
    machine.run("sh /data/load >/dev/null 2>&1 &")
    # At any moment of a pass, an upload, a commit of the server's.
    time.sleep(1 + rng.random() * 2)
    machine.power_cut()
    fates, server_fates = (dict(disk.backend.outcomes) for disk in machine.disks)
    machine.boot()
    node, site.data = machine.node(source), machine.node(machine.disks[1])
    site.start()
    machine.wait("grep -q 'the machine was restarted' /data/replicator.log")
    site.wait_synced(node)
    status = site.status(node)
    # Incompressible, so that a copy of everything would show.
    used = int(machine.run(f"mkdir -p /mnt/source && mount {node} /mnt/source && df -m /mnt/source | awk 'END {{ print $3 }}'"))
    if status["sent_bytes"] > status["bytes"] // 2:
        raise AssertionError(f"{status['sent_bytes']} bytes were sent after the cut: more than what can differ")
    point = site.tag(node, f"cut{number}")
    site.check(point)
    site.check(before)
    print(f"{machine.kernel.line}: cut {number}: unflushed writes {fates}, of the server {server_fates}; gap named; {status['read_bytes'] >> 10} KiB "
          f"read, {status['sent_bytes'] >> 10} KiB sent of a disk with {used} MiB in use; the point after and the "
          "point before are exact", flush=True)
    return point


def cuts(kernel, rng: random.Random, count: int, folder: pathlib.Path) -> None:
    initramfs = with_site(Initramfs(kernel).modules("virtio_pci", "virtio_blk"))
    source, data = (Disk("virtio-blk", backend=LossyDisk(folder, f"{name}-{kernel.line}", size, rng.getrandbits(32)),
                         serial=name) for name, size in (("source", MIB), ("data", 2048)))
    with Machine(f"power-cut-{kernel.line}", initramfs, [source, data], memory_mib=1536) as machine:
        machine.boot()
        site = Site(machine, machine.node(data))
        try:
            site.create()
            node = machine.node(source)
            machine.run(f"mkfs.ext4 -q {node} && mkdir -p /mnt/source && mount {node} /mnt/source && "
                        f"cat >/data/load <<'END'\n{LOAD}\nEND\n"
                        "dd if=/dev/urandom of=/mnt/source/base bs=1M count=16 2>/dev/null; sync")
            site.start()
            site.protect(node)
            point = site.tag(node, "base")
            for number in range(count):
                machine.run("truncate -s 0 /data/replicator.log")
                point = cut_and_resume(machine, source, site, rng, point, number)
        except BaseException:
            if machine.process:
                print(site.logs())
            raise
        machine.shut_down()


def main() -> int:
    skip_unless_possible()
    rng = seeded()
    for line in kernel_lines("nightly"):
        with tempfile.TemporaryDirectory(prefix="herald-vm-") as folder:
            cuts(kernels.find(line), rng, scaled(1, 1, 20), pathlib.Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
