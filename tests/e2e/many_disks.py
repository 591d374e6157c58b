#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A replicator of sixteen disks, in nightly runs of sixty-four, the most there can be, stays under its 256 MiB also
while its server takes nothing for seconds, again and again: what is read, gathered, unsent and idle of all disks
together is bounded, whatever the data compresses to."""
import os
import pathlib
import random
import signal
import sys
import time

from rig import Rig, run, seeded, skip_unless_possible

DISKS = 64 if os.environ.get("HERALD_TIER") == "nightly" else 16
DISK_MIB = 1536 // DISKS
LIMIT_KIB = 256 << 10
STOPS = 6


def fill(path: pathlib.Path, rng: random.Random) -> None:
    """Pages of which a part is noise: from nearly nothing to all of it, by stretches of 8 MiB."""
    with open(path, "r+b") as file:
        for _ in range(DISK_MIB // 8):
            noise = rng.randrange(512, 4097)
            page = rng.randbytes(noise) + bytes(4096 - noise)
            for number in range(2048):
                file.write(number.to_bytes(8, "little") + os.urandom(noise - 8) + page[noise:])


def memory_kib(pid: int, field: str) -> int:
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise RuntimeError(f"no {field}")


def main() -> int:
    skip_unless_possible()
    rng = seeded()
    with Rig(size_mib=DISK_MIB, mounted=False) as rig:
        disks = [rig.loop]
        fill(rig.source, rng)
        try:
            for number in range(1, DISKS):
                image = rig.work / f"disk{number}.img"
                with open(image, "wb") as file:
                    file.truncate(DISK_MIB << 20)
                fill(image, rng)
                disks.append(run("losetup", "--find", "--show", image).stdout.strip())
            os.sync()
            rig.start()
            pid = rig.processes["replicator"].pid
            for disk in disks:
                rig.cbtctl("protect", disk)
            for _ in range(STOPS):
                time.sleep(0.4)
                rig.processes["server"].send_signal(signal.SIGSTOP)
                time.sleep(2)
                rig.processes["server"].send_signal(signal.SIGCONT)
                for disk in disks:
                    rig.cbtctl("resync", disk, "--full", check=False)
            for disk in disks:
                rig.cbtctl("status", disk, "--wait-synced", "--timeout", 200, timeout=230)
            peak = memory_kib(pid, "VmHWM")
            print(f"{DISKS} disks: peak {peak} KiB, now {memory_kib(pid, 'VmRSS')} KiB, limit {LIMIT_KIB} KiB")
            if peak > LIMIT_KIB:
                raise AssertionError("the replicator took more memory than it may")
        finally:
            rig.kill("replicator", signal.SIGTERM)
            for disk in disks[1:]:
                run("losetup", "-d", disk, check=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
