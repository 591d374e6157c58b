#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The driver from its load to its removal, under random load and with rings that overflow, on a kernel with
KASAN, lockdep and kmemleak, silent; and the proof that it would not be silent: a module with a leak, a lock
inversion, a sleep in atomic context, an overrun and a use after free is reported for each.

Outside the nightly tier only where the kernel is in the cache: it takes 13 minutes of a processor to
build (tests/vm/debug_kernel.py does it)."""
import os
import random
import re
import sys
import time

import debug_kernel
import driver
import module
from driver_full import PROGRAMS, rings_overflow
from driver_sectors import boundaries_are_images
from driver_smoke import smoke
from initramfs import Initramfs
from kernels import NoKernel
from machine import BUILD, SKIPPED, TIER, GuestFailed, Machine, scaled, skip_unless_possible

FAULTY = "tests/vm/faulty_module"
# In this order: a lock inversion ends lockdep, and KASAN reports the first fault only.
FAULTS = (("leak", "unreferenced object"), ("sleep", "sleeping function called from invalid context"),
          ("inversion", "possible circular locking"), ("overrun", "slab-out-of-bounds"),
          ("use_after_free", "(slab-)?use-after-free"))


def look_for_leaks(machine: Machine) -> None:
    """What kmemleak does not find a pointer to. It passes over what is younger than five seconds, and says
    so of a thing that two scans did not find."""
    machine.run("test -e /sys/kernel/debug/kmemleak || mount -t debugfs debugfs /sys/kernel/debug")
    machine.run("sleep 6; echo scan >/sys/kernel/debug/kmemleak; echo scan >/sys/kernel/debug/kmemleak", timeout=300)
    said = machine.run("cat /sys/kernel/debug/kmemleak")
    if said:
        raise GuestFailed(f"{machine.name}: kmemleak: {said}")


def faults_are_noticed(initramfs: Initramfs) -> None:
    with Machine("driver-debug-faults", initramfs, memory_mib=768) as machine:
        machine.boot()
        look_for_leaks(machine)
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


def main() -> int:
    skip_unless_possible()
    if TIER != "nightly" and not debug_kernel.cached():
        print("SKIPPED: the debug kernel is not in the cache; tests/vm/debug_kernel.py builds it, as does --nightly")
        return SKIPPED
    try:
        kernel = debug_kernel.find()
    except NoKernel as reason:
        print(f"SKIPPED: no debug kernel: {reason}")
        return SKIPPED
    seed = int(os.environ.get("HERALD_SEED") or random.randrange(1 << 31))
    print(f"{kernel.release}: seed {seed} (repeat with HERALD_SEED={seed})", flush=True)
    initramfs = driver.with_driver(kernel).module(module.build(kernel, FAULTY))
    initramfs.program(*(BUILD / f"tests/vm_{name}" for name in ("cbt_format", "cbt_sectors", *PROGRAMS)))
    faults_are_noticed(initramfs)
    smoke(initramfs, "driver-debug", after=look_for_leaks)
    boundaries_are_images(initramfs, seed, scaled(500, 500, 3000), name="debug-sectors", boundaries=scaled(100, 100, 1000),
                          after=look_for_leaks)
    rings_overflow(initramfs, seed, scaled(300, 300, 3000), 1, after=look_for_leaks)
    return 0


if __name__ == "__main__":
    sys.exit(main())
