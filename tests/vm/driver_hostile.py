#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A hostile reader: every ioctl of the driver and every mapping of its file, valid and not, by several
processes over three disks that are written to, suspended, reloaded, resized and removed meanwhile; see
guest/cbt_hostile.cpp. No page can be written, no answer holds what the interface does not define, the
kernel has nothing to complain of, and each disk's replica is the disk afterwards.

Usage: driver_hostile.py [SEED] (default: HERALD_SEED, or a new one, which is printed)"""
import os
import random
import sys
import time

import driver
from driver_full import DISK_MIB, PROGRAMS, WRITTEN_SECTORS, Disks
from initramfs import Initramfs
from machine import BUILD, Disk, GuestFailed, Machine, scaled

HOSTILE = ("cbt_hostile", "cbt_format", *PROGRAMS)
SECTORS = DISK_MIB << 11
SMALL = WRITTEN_SECTORS + 72
PROCESSES = 4
# More than the rings take; it is what they are made of then.
DIRTY_MIB = 400
STEADY, SIZED, BRIEF = "steady", "sized", "brief"
# What is done to the tables, round after round; the loads beside it are of `steady` and `sized`. Small
# rings, so that each mode is met. Durations are those of loads that a hold may stop for 0.3 s at a time.
ROUNDS = """
export DM_DISABLE_UDEV=1
round=0
swap() {{
    dmsetup reload $1 --table "$2" && dmsetup suspend $3 $1 && dmsetup resume --noudevsync $1
}}
while ! test -e /run/stop; do
    round=$((round + 1))
    dmsetup suspend steady && sleep 0.0$((round % 10)) && dmsetup resume --noudevsync steady || exit 1
    swap steady "$(dmsetup table steady)" || exit 2
    swap sized "0 {small} cbt {sized} - 4 slots 1024 payload_bytes 2097152" || exit 3
    sleep 0.1
    swap sized "0 {sectors} cbt {sized} - 4 slots 1024 payload_bytes 2097152" --noflush || exit 4
    case $((round % 4)) in
        0) options="{meta2} 2 slots 256" ;;
        1) options="- 4 slots 16 payload_bytes 2097152" ;;
        2) options="- 5 slots 512 payload_bytes 0 nobounce" ;;
        3) options="{meta2} 4 slots 32768 payload_bytes 16777216" ;;
    esac
    dmsetup create --noudevsync brief --table "0 {sectors} cbt {brief} $options" || exit 5
    sleep 0.1
    vm_sector_load $round 10 2 {span} 16 /dev/mapper/brief || exit 6
    # Behind the back of whoever reads it, or taken out.
    if test $((round % 3)) = 0; then
        swap brief "0 {sectors} linear {brief} 0" || exit 7
        swap brief "0 {sectors} cbt {brief} $options" || exit 8
        sleep 0.1
    fi
    dmsetup remove --noudevsync brief || exit 9
done
echo $round rounds of tables
"""
LOADS = """
number=0
while ! test -e /run/stop; do
    number=$((number + 1))
    vm_sector_load $number 300 4 {span} 16 /dev/mapper/steady /dev/mapper/sized || exit 1
done
echo $number loads
"""


def fresh_pages_are_zero(machine: Machine, nodes: list[str]) -> None:
    for node in nodes:
        print(node, machine.run(f"vm_cbt_hostile fresh {node}"), flush=True)


def storm(machine: Machine, words: str, seconds: int, **names) -> None:
    names.update(small=SMALL, sectors=SECTORS, span=WRITTEN_SECTORS)
    for name, text in (("rounds", ROUNDS), ("loads", LOADS)):
        machine.run(f"cat >/run/{name} <<'END'\n{text.format(**names)}\nEND")
    status, said = machine.attempt(f"""
        rm -f /run/stop
        for name in rounds loads; do
            (sh /run/$name >/run/$name.said 2>&1; echo "status $?" >>/run/$name.said) &
        done
        vm_cbt_hostile {words} {names["steady"]} 2>&1; status=$?
        touch /run/stop; wait
        cat /run/rounds.said /run/loads.said
        exit $status""", timeout=seconds + 300)
    print(said, flush=True)
    if status != 0 or said.count("status 0") != 2:
        raise GuestFailed(f"the storm: status {status}\n{machine.tail()}")


def hostile_reader(machine: Machine, disks: list[Disk], seed: int, calls: int, each: int, seconds: int) -> None:
    """With the driver loaded; `disks` are of DISK_MIB."""
    machine.run(f"insmod /modules/brd.ko rd_nr=3 rd_size={DISK_MIB << 10}")
    origins = {STEADY: machine.node(disks[0]), SIZED: "/dev/ram0", BRIEF: machine.node(disks[1])}
    for meta in ("/dev/ram1", "/dev/ram2"):
        machine.run(f"vm_cbt_format {meta} {SECTORS}")
    options = {STEADY: ("/dev/ram1", "slots", "4096", "payload_bytes", str(4 << 20)),
               SIZED: ("-", "slots", "1024", "payload_bytes", str(2 << 20)),
               BRIEF: ("-", "slots", "32768", "payload_bytes", str(16 << 20))}
    nodes = {name: driver.create(machine, name, origins[name], *words) for name, words in options.items()}
    fresh_pages_are_zero(machine, list(nodes.values()))
    driver.remove(machine, BRIEF)
    storm(machine, f"{seed} {calls} {each} {seconds} {PROCESSES}", seconds, meta2="/dev/ram2", **origins)
    driver.create(machine, BRIEF, origins[BRIEF], *options[BRIEF])
    for number, (name, node) in enumerate(nodes.items()):
        replica = Disks(machine, origins[name], seed + number, 500)
        replica.node = node
        machine.run("rm -f /run/replica")
        # The hostile reader said that it had stored what it had not: once as a whole.
        replica.follow("--copy")
        replica.check(f"{name} after the storm", replica.follow("", replica.load()))
        print(driver.status(machine, name))
        driver.remove(machine, name)


def with_hostile(initramfs: Initramfs) -> Initramfs:
    return initramfs.modules("brd", load=False).program(*(BUILD / f"tests/vm_{name}" for name in HOSTILE))


def main() -> int:
    seed = int(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("HERALD_SEED") or random.randrange(1 << 31))
    kernel = driver.kernel_or_skip("6.1")
    print(f"{kernel.release}: seed {seed} (repeat with driver_hostile.py {seed})", flush=True)
    began = time.monotonic()
    disks = [Disk("virtio-blk", DISK_MIB, serial=name) for name in (STEADY, BRIEF)]
    # What the allocator clears by itself would hide what the driver does not.
    with Machine(f"driver-hostile-{kernel.line}", with_hostile(driver.with_driver(kernel)), disks, processors=4,
                 command_line="init_on_alloc=0") as machine:
        machine.boot()
        machine.run(f"vm_cbt_hostile dirty {DIRTY_MIB}")
        driver.load(machine)
        hostile_reader(machine, disks, seed, scaled(20_000, 20_000, 500_000), scaled(50, 50, 1000),
                       scaled(600, 600, 3600))
        machine.run("rmmod dm_cbt")
        machine.shut_down()
    print(f"{time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
