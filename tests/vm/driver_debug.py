#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The driver with a hostile reader, with rings that overflow and under random load on a kernel with KASAN,
lockdep and kmemleak, silent; and the proof that it would not be silent: a module with a leak, a lock
inversion, a sleep in atomic context, an overrun and a use after free is reported for each. The hostile
reader runs nine tenths of the lines that it is there for.

In the check tier only where the kernel is in the cache: it takes 13 minutes of a processor to build
(tests/vm/debug_kernel.py does it)."""
import os
import random
import re
import sys
import time

import coverage
import debug_kernel
import driver
import module
from driver_full import DISK_MIB, Disks, overflow
from driver_hostile import hostile_reader, with_hostile
from driver_sectors import boundaries_are_images
from driver_smoke import META_MIB, from_load_to_removal
from kernels import NoKernel
from machine import BUILD, SKIPPED, TIER, Disk, GuestFailed, Machine, scaled, skip_unless_possible

FAULTY = "tests/vm/faulty_module"
# In this order: a lock inversion ends lockdep, and KASAN reports the first fault only.
FAULTS = (("leak", "unreferenced object"), ("sleep", "sleeping function called from invalid context"),
          ("inversion", "possible circular locking"), ("overrun", "slab-out-of-bounds"),
          ("use_after_free", "(slab-)?use-after-free"))
# What the interface is made of, and how much of it must have run.
HOSTILE_REACHES = ("calls.c", "device.c", "group.c")
LINES_MIN = 0.9
MEMORY_MIB = 384
PROCESSORS = 2


def look_for_leaks(machine: Machine) -> None:
    """What kmemleak does not find a pointer to. It passes over what is younger than five seconds, and says
    so of a thing that two scans did not find."""
    machine.run("test -e /sys/kernel/debug/kmemleak || mount -t debugfs debugfs /sys/kernel/debug")
    machine.run("sleep 6; echo scan >/sys/kernel/debug/kmemleak; echo scan >/sys/kernel/debug/kmemleak", timeout=300)
    said = machine.run("cat /sys/kernel/debug/kmemleak")
    if said:
        raise GuestFailed(f"{machine.name}: kmemleak: {said}")


def faults_are_noticed(machine: Machine) -> None:
    for fault, words in FAULTS:
        machine.run(f"insmod /modules/faulty.ko fault={fault}; rmmod faulty")
        try:
            if fault == "leak":
                look_for_leaks(machine)
            else:
                time.sleep(0.5)  # the last lines of a report, on their way
                machine.look_for_complaints()
        except GuestFailed as failure:
            if not re.search(words, str(failure)):
                raise AssertionError(f"{fault}: said something else: {failure}") from failure
            print(f"{fault}: noticed", flush=True)
            machine.run("echo clear >/sys/kernel/debug/kmemleak")
            continue
        raise AssertionError(f"{fault}: not noticed")


class Stopwatch:
    def __init__(self):
        self.since = time.monotonic()

    def say(self, what: str) -> None:
        now = time.monotonic()
        print(f"{what}: {now - self.since:.0f} s", flush=True)
        self.since = now


def main() -> int:
    skip_unless_possible()
    if TIER == "check" and not debug_kernel.cached():
        print("SKIPPED: the debug kernel is not in the cache; tests/vm/debug_kernel.py builds it")
        return SKIPPED
    try:
        kernel = debug_kernel.find()
    except NoKernel as reason:
        print(f"SKIPPED: no debug kernel: {reason}")
        return SKIPPED
    seed = int(os.environ.get("HERALD_SEED") or random.randrange(1 << 31))
    print(f"{kernel.release}: seed {seed} (repeat with HERALD_SEED={seed})", flush=True)
    built = module.build(kernel, module.DRIVER, *coverage.WORDS)
    initramfs = with_hostile(driver.with_driver(kernel, *coverage.WORDS)).module(module.build(kernel, FAULTY))
    initramfs.program(BUILD / "tests/vm_cbt_sectors")
    disks = [Disk("virtio-blk", size, serial=name)
             for name, size in (("one", DISK_MIB), ("two", DISK_MIB), ("meta", META_MIB))]
    watch = Stopwatch()
    with Machine("driver-debug", initramfs, disks, memory_mib=MEMORY_MIB, processors=PROCESSORS) as machine:
        machine.boot()
        # When asked only: each scan takes long.
        machine.run("mount -t debugfs debugfs /sys/kernel/debug; echo scan=off >/sys/kernel/debug/kmemleak")
        watch.say("boot")
        if TIER == "nightly":
            # Of hundreds of processes, each of which takes half a second to begin here.
            from_load_to_removal(machine, *(machine.node(disk) for disk in (disks[0], disks[2])))
            watch.say("load to removal")
        driver.load(machine)
        coverage.reset(machine)
        hostile_reader(machine, disks[:2], seed, scaled(5000, 10_000, 500_000), scaled(30, 50, 1000),
                       scaled(900, 900, 3600))
        share = coverage.report({source: coverage.of(machine, built, source) for source in HOSTILE_REACHES})
        watch.say("hostile reader")
        overflow(machine, Disks(machine, machine.node(disks[0]), seed, scaled(100, 200, 3000)))
        driver.remove(machine, "tracked")
        watch.say("rings that overflow")
        boundaries_are_images(machine, disks[:2], seed, scaled(200, 300, 3000), scaled(50, 50, 1000))
        watch.say("sectors")
        machine.run("rmmod dm_cbt")
        look_for_leaks(machine)
        watch.say("leaks")
        machine.look_for_complaints()
        faults_are_noticed(machine)
        watch.say("faults")
        machine.power_cut()
    if share < LINES_MIN:
        raise AssertionError(f"{100 * share:.1f} % of the lines of {', '.join(HOSTILE_REACHES)} ran")
    return 0


if __name__ == "__main__":
    sys.exit(main())
