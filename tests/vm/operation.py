# SPDX-License-Identifier: Apache-2.0
"""What the operations of driver_operations.py stand on: a tracked disk, its replica, tables under and above
it, and a watchdog on every call of dmsetup."""
import statistics

import driver
from driver_full import Disks
from machine import Machine, scaled

DISK_MIB = 16
META_MIB = 8
SECTORS = DISK_MIB << 11
# dmsetup, which must end by itself; how long it took goes to /run/durations.
DM = "sh /run/dm"
WATCHDOG_SECONDS = 120
DM_SCRIPT = f"""
read began rest </proc/uptime
DM_DISABLE_UDEV=1 timeout {WATCHDOG_SECONDS} dmsetup "$@"
status=$?
read ended rest </proc/uptime
echo "$1 $began $ended" >>/run/durations
exit $status
"""


def make(machine: Machine, name: str, table: str) -> str:
    machine.run(f"printf '{table}\\n' | {DM} create --noudevsync {name}")
    return f"/dev/mapper/{name}"


def swap(machine: Machine, name: str, table: str) -> None:
    """Another table for a device that is in use, as `lvextend` and `dmsetup` do it."""
    machine.run(f"{DM} reload {name} --table '{table}' && {DM} suspend --noflush --nolockfs {name} && "
                f"{DM} resume --noudevsync {name}")


class Durations:
    """Of the calls of dmsetup, by what was asked."""

    def __init__(self):
        self.seconds: dict[str, list[float]] = {}

    def take(self, machine: Machine) -> None:
        for line in machine.run("touch /run/durations; cat /run/durations; rm /run/durations").splitlines():
            verb, began, ended = line.split()
            self.seconds.setdefault(verb, []).append(float(ended) - float(began))

    def __str__(self):
        return "; ".join(f"{verb}: {len(took)} times, median {statistics.median(took):.2f} s, "
                         f"longest {max(took):.2f} s" for verb, took in sorted(self.seconds.items()))


def linear(node: str, sectors=SECTORS) -> str:
    return f"0 {sectors} linear {node} 0"


class Operation:
    """One tracked disk, /dev/mapper/tracked, and its replica."""

    def __init__(self, machine: Machine, disks: list[str], seed: int, durations: Durations):
        self.durations = durations
        self.machine, (self.origin, self.other, self.meta) = machine, disks
        # Many rounds rather than long ones.
        self.replica = Disks(machine, self.origin, seed, scaled(400, 1000, 1000))

    def track(self, origin: str, meta="-", *options: str, copy=True) -> None:
        words = f" {len(options)} {' '.join(options)}" if options else ""
        sectors = driver.sectors(self.machine, origin)
        self.replica.node = make(self.machine, "tracked", f"0 {sectors} cbt {origin} {meta}{words}")
        if copy:
            self.machine.run("rm -f /run/replica")
            self.replica.follow("--copy")

    def untrack(self, name="tracked") -> None:
        self.machine.run(f"{DM} remove --noudevsync {name}")

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
