# SPDX-License-Identifier: Apache-2.0
"""Of driver_operations.py: what is done to a disk whose dirty map is on a meta device."""
import time

import driver
from driver_full import WRITTEN_SECTORS
from operation import DISK_MIB, DM, DM_SCRIPT, META_MIB, SECTORS, Operation, linear, make, swap


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
    it.untrack("low")


def cuts(it: Operation) -> None:
    """Origin and meta device fail at one time, amid a load, as at a power cut: what the replica lacks is dirty."""
    machine = it.machine
    machine.run(f"vm_cbt_format {it.meta} {SECTORS}")
    lows = {"low": linear(it.origin), "lowmeta": linear(it.meta, META_MIB << 11)}
    for name, table in lows.items():
        make(machine, name, table)
    it.track("/dev/mapper/low", "/dev/mapper/lowmeta")
    scanned = 0
    for number in range(3):
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
        it.untrack(name)


def extended(it: Operation) -> None:
    """As `lvextend` does it, which knows nothing of the driver: a larger table of its own is loaded over the
    driver's, under load and with a reader. Protecting again names the gap, and tracks what it grew by."""
    machine = it.machine
    small = WRITTEN_SECTORS + 72
    machine.run(f"vm_cbt_format {it.meta} {SECTORS}")
    make(machine, "tracked", f"0 {small} cbt {it.origin} {it.meta}")
    it.replica.node = "/dev/mapper/tracked"
    it.close_gap()
    status, said = machine.attempt(f"""
        rm -f /run/stop
        vm_cbt_replica {it.replica.node} /run/replica --until /run/stop >/run/said 2>&1 & reader=$!
        {it.replica.load()} & load=$!
        sleep 0.5
        {DM} reload tracked --table '{linear(it.origin)}' && {DM} suspend --noflush --nolockfs tracked &&
            {DM} resume --noudevsync tracked || exit 99
        wait $load || exit 98
        wait $reader; status=$?; cat /run/said; exit $status""", timeout=300)
    if status in (0, 98, 99) or "No such device" not in said:
        raise AssertionError(f"status {status} after it was extended: {said}")
    it.poke(it.replica.node, DISK_MIB - 2)
    swap(machine, "tracked", f"0 {SECTORS} cbt {it.origin} {it.meta}")
    it.says("gap not-detached", "persistence active")
    it.close_gap()
    it.exact("an extended volume, protected again", it.replica.load())
    it.untrack()


def absent(it: Operation) -> None:
    """Power cuts, and boots without the module. Where nobody wrote meanwhile the map speaks for the disk; where
    somebody did, it does not."""
    machine = it.machine

    def boot(before: str) -> None:
        # What the replica has outlives it as a server's does.
        machine.run(f"dd if=/run/replica of={it.other} bs=1M conv=fsync 2>/dev/null")
        it.durations.take(machine)
        machine.power_cut()
        machine.boot()
        machine.run(f"cat >/run/dm <<'END'\n{DM_SCRIPT}\nEND\ndd if={it.other} of=/run/replica bs=1M 2>/dev/null")
        if before:
            machine.run(before)
        driver.load(machine)

    machine.run(f"vm_cbt_format {it.meta} {SECTORS}")
    it.track(it.origin, it.meta)
    it.says("gap -", "persistence active")
    # Unread, and not in the watched ranges.
    for mib in (5, 9):
        it.poke(it.replica.node, mib)
    boot("")
    it.track(it.origin, it.meta, copy=False)
    it.says("gap -", "persistence active")
    if not it.replica.follow()["scanned_blocks"]:
        raise AssertionError("nothing was dirty after a power cut")
    it.same("a power cut, and a boot without the module")
    it.poke(it.replica.node, 7)
    boot(f"dd if=/dev/urandom of={it.origin} bs=4k count=1 seek=2 conv=notrunc,fsync 2>/dev/null")
    it.track(it.origin, it.meta, copy=False)
    it.says("gap changed-untracked")
    it.close_gap()
    it.exact("written to without the module", it.replica.load())
    it.untrack()


ALL = (absent, meta, meta_breaks, cuts, extended)
