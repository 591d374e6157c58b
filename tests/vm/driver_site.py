#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A site with the driver inside one machine: two volumes in use are protected live, their points freeze
nothing, and what is restored at an arbitrary boundary is the image of a power cut: the file system replays
its journal and is clean, and all that was acknowledged before the boundary is there. At a quiescent moment
the image is the device, sector for sector. Whoever is killed while a table is swapped leaves one in use.

Usage: driver_site.py [SEED] (default: HERALD_SEED, or a new one, which is printed)"""
import contextlib
import json
import os
import random
import sys
import time

import driver
from machine import Disk, GuestFailed, Machine, scaled
from site_in_guest import Site, with_site

MIB = 24
VOLUMES = ("vol0", "vol1")
# Numbered files that say what they hold, each on the disk before its number goes to /run/acked.NAME; the newest
# sixty stay. The scratch files beside them nobody syncs.
KEPT = 60
LOAD = """
number=0
while ! test -e /run/stop; do
    test -e /run/pause && sleep 0.3 && continue
    number=$((number + 1))
    file=/mnt/$1/file$number
    head -c $((number % 7 * 3000)) /dev/urandom >/run/body.$1
    { echo $number $(md5sum </run/body.$1 | cut -c1-32); cat /run/body.$1; } >/run/made.$1
    dd if=/run/made.$1 of=$file bs=64k conv=fsync 2>/dev/null || { echo failed at $number >/run/failed.$1; exit 1; }
    echo $number >/run/acked.new.$1 && mv /run/acked.new.$1 /run/acked.$1
    head -c 40000 /dev/urandom >/mnt/$1/scratch$((number % 5))
    test $number -gt 60 && rm /mnt/$1/file$((number - 60))
    sleep 0.1
done
"""
STEPS_IN = ("cbtctl.helper_made", "cbtctl.loaded", "cbtctl.swapped")
STEPS_OUT = ("cbtctl.detached", "cbtctl.loaded", "cbtctl.swapped")


def node(name: str) -> str:
    return f"/dev/mapper/{name}"


def expect(holds: bool, what: str) -> None:
    if not holds:
        raise GuestFailed(what)


class Load:
    """Of both volumes; it goes on while they are protected, swapped and cut, and pauses while an image is looked at:
    all that takes minutes of an emulated processor, in which the stream would grow by a segment a second."""

    def __init__(self, machine: Machine):
        self.machine = machine
        machine.run(f"cat >/run/load <<'END'\n{LOAD}\nEND")

    def start(self) -> None:
        self.machine.run("rm -f /run/stop")
        for name in VOLUMES:
            self.machine.run(f"sh /run/load {name} >/dev/null 2>&1 &")
            self.machine.wait(f"test -s /run/acked.{name}")

    def acked(self, name: str) -> int:
        return int(self.machine.run(f"cat /run/acked.{name}"))

    def goes_on(self) -> None:
        for name in VOLUMES:
            before = self.acked(name)
            self.machine.wait(f"test $(cat /run/acked.{name}) -gt {before + 1}", seconds=120)

    @contextlib.contextmanager
    def paused(self):
        self.machine.run("touch /run/pause")
        yield
        self.machine.run("rm /run/pause")

    def stop(self) -> None:
        self.machine.run("touch /run/stop")
        self.machine.wait("! grep -qs '/run/[l]oad' /proc/[0-9]*/cmdline")
        expect(self.machine.attempt("cat /run/failed.*")[0] != 0, "a write of the load failed")


def make_volumes(machine: Machine, disk: str) -> None:
    at = 2048
    for name, mib in (("vol0", MIB), ("vol1", MIB), ("meta0", 1)):
        sectors = mib << 11
        machine.run(f"DM_DISABLE_UDEV=1 dmsetup create --noudevsync {name} --table '0 {sectors} linear {disk} {at}'")
        at += sectors
    for name in VOLUMES:
        machine.run(f"mkfs.ext4 -q {node(name)} && mkdir -p /mnt/{name} && mount {node(name)} /mnt/{name}")


def killed_at(machine: Machine, step: str, words: str) -> None:
    status, said = machine.attempt(f"HERALD_CRASH_AT={step} cbtctl --socket /run/herald/replicator.sock {words}")
    expect(status == 137, f"cbtctl {words}: not killed at {step}: status {status}: {said}")


def protect_live(machine: Machine, site: Site, load: Load) -> None:
    status, said = machine.attempt(f"cbtctl format-meta {node('vol0')} --disk {node('vol1')} --force")
    expect(status == 1 and "in use" in said, f"format-meta of a mounted volume: {status} {said}")
    status, said = machine.attempt(f"cbtctl protect {machine.node(machine.disks[0])} --tracker dm_cbt")
    expect(status == 1 and "not a device-mapper device" in said, f"--tracker dm_cbt of a disk: {status} {said}")
    # The other volume is mounted: the kernel refuses the table, and all is as before.
    before = machine.run("dmsetup table")
    status, said = machine.attempt(f"cbtctl protect {node('vol0')} --meta {node('vol1')} --tracker-only")
    expect(status == 1 and "goes on as before" in said, f"a meta device in use: {status} {said}")
    expect(machine.run("dmsetup table") == before, "a failed protect left something behind")
    load.goes_on()
    status, said = machine.attempt(f"cbtctl protect {node('vol0')} --meta /dev/mapper/meta0 --tracker-only")
    expect(status == 0, f"a meta device that was not formatted: {said}")
    expect("meta" in json.loads(site.cbtctl(f"stats {node('vol0')} --json"))["gap"], "no gap is named")
    site.cbtctl(f"unprotect {node('vol0')} --tracker-only")
    load.goes_on()
    driver.create(machine, "by_hand", "/dev/mapper/meta0")
    status, said = machine.attempt("cbtctl unprotect /dev/mapper/by_hand --tracker-only")
    expect(status == 1 and "not protected by cbtctl" in said, f"a table made by hand: {status} {said}")
    driver.remove(machine, "by_hand")
    site.cbtctl(f"format-meta /dev/mapper/meta0 --disk {node('vol0')}")
    for step in STEPS_IN:
        killed_at(machine, step, f"protect {node('vol0')} --meta /dev/mapper/meta0 --tracker dm_cbt")
        load.goes_on()
    site.cbtctl(f"protect {node('vol0')} --meta /dev/mapper/meta0 --tracker dm_cbt")
    site.cbtctl(f"protect {node('vol1')}")
    load.goes_on()
    for name in VOLUMES:
        site.wait_synced(node(name))
        said = site.status(node(name))
        expect(said["tracker"] == "dm_cbt", f"{name}: {said}")


def position_after(machine: Machine, site: Site, name: str, position: int) -> dict:
    """The first point behind it."""
    ends = time.monotonic() + 120
    while True:
        status = site.status(node(name))
        point = status["last_point"]
        if point and point["position"] > position:
            expect(status["frozen_ms_total"] == 0, f"{name}: a point froze: {status}")
            return point
        expect(time.monotonic() < ends, f"{name}: no point behind {position}: {status}")
        time.sleep(0.3)


def check_image(machine: Machine, site: Site, name: str, chosen: str, acked: int) -> None:
    disk = site.status(node(name))["disk"]
    began = time.monotonic()
    said = site.herald(f"restore {disk} {chosen} --to /data/images/cut.img --json", timeout=600)
    said = json.loads(said[said.index("{\n"):])
    # As after a power cut: mounting replays the journal.
    machine.run("mkdir -p /mnt/cut && mount -o loop -t ext4 /data/images/cut.img /mnt/cut")
    # All that was acknowledged before, and without a hole: each was on the disk before the next was begun, and the
    # newest may be half made.
    last = int(machine.run(f"""
        last=$(ls /mnt/cut | sed -n 's/^file//p' | sort -n | tail -n 1)
        test $last -ge {acked} || {{ echo "the newest is file$last, and file{acked} was acknowledged"; exit 1; }}
        number=$((last > {KEPT - 1} ? last - {KEPT - 1} : 1))
        while test $number -le $((last > {acked} ? last - 1 : last)); do
            file=/mnt/cut/file$number
            test "$(head -n 1 $file)" = "$number $(tail -n +2 $file | md5sum | cut -c1-32)" || {{ echo "$file is not whole"; exit 1; }}
            number=$((number + 1))
        done
        echo $last"""))
    machine.run("umount /mnt/cut && e2fsck -fn /data/images/cut.img && rm /data/images/cut.img")
    print(f"{name} {chosen}: clean; {acked} were acknowledged before, {last} there; restored from {said['segments']} "
          f"segments, {time.monotonic() - began:.0f} s with the checks", flush=True)


def boundaries(machine: Machine, site: Site, load: Load, rng: random.Random, names) -> None:
    for name in names:
        point = position_after(machine, site, name, 0)
        acked = load.acked(name)
        # One point may have been under way.
        for _ in range(2):
            point = position_after(machine, site, name, point["position"])
        last = position_after(machine, site, name, point["position"])["position"]
        with load.paused():
            check_image(machine, site, name, f"--position {rng.randint(point['position'], last)}", acked)


def one_moment(machine: Machine, site: Site, load: Load) -> None:
    acked = {name: load.acked(name) for name in VOLUMES}
    said = json.loads(site.cbtctl(f"tag --disks {node('vol0')},{node('vol1')} --json"))
    expect(said["ok"], f"tag --disks: {said}")
    for name in VOLUMES:
        position_after(machine, site, name, position_after(machine, site, name, 0)["position"])
    with load.paused():
        for name in VOLUMES:
            check_image(machine, site, name, f"--point {said['tag']}", acked[name])


def quiescent(machine: Machine, site: Site, load: Load) -> None:
    load.stop()
    machine.run("sync")
    for name in VOLUMES:
        disk = site.status(node(name))["disk"]
        machine.run(f"blockdev --flushbufs {node(name)}")
        point = json.loads(site.cbtctl(f"tag {node(name)} --name quiet --json"))["point"]
        on_disk = machine.run(f"dd if={node(name)} bs=1M iflag=direct 2>/dev/null | sha256sum")
        site.herald(f"restore {disk} --point {point['id']} --to /data/images/quiet.img")
        image = machine.run("sha256sum </data/images/quiet.img; rm /data/images/quiet.img")
        expect(image == on_disk, f"{name}: the image is not the device: {image}, {on_disk}")
        dirty = json.loads(site.cbtctl(f"map {node(name)} --json"))
        print(f"{name}: quiescent, the image is the device; {dirty['dirty_blocks']} blocks dirty", flush=True)


def unprotect_live(machine: Machine, site: Site, load: Load) -> None:
    load.start()
    for step in STEPS_OUT:
        # The first lets the replicator go of it, too.
        killed_at(machine, step, f"unprotect {node('vol0')} {'--tracker-only' if step != STEPS_OUT[0] else ''}")
        load.goes_on()
    for name in VOLUMES:
        words = "--tracker-only" if name == "vol0" else ""
        site.cbtctl(f"unprotect {node(name)} {words}")
    load.goes_on()
    load.stop()
    expect("cbt" not in machine.run("dmsetup table"), "a table of the driver is left")
    expect("herald-origin" not in machine.run("dmsetup ls"), "a helper device is left")
    for name in VOLUMES:
        machine.run(f"umount /mnt/{name} && e2fsck -fn {node(name)}")


def main() -> int:
    seed = int(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("HERALD_SEED") or random.randrange(1 << 31))
    kernel = driver.kernel_or_skip("6.1")
    initramfs = with_site(driver.with_driver(kernel).modules("loop"))
    print(f"{kernel.release}: seed {seed} (repeat with driver_site.py {seed})", flush=True)
    disks = [Disk("virtio-blk", 2 * MIB + 8, serial="volumes"), Disk("virtio-blk", 768, serial="site")]
    with Machine(f"driver-site-{kernel.line}", initramfs, disks, memory_mib=1280) as machine:
        machine.boot()
        driver.load(machine)
        make_volumes(machine, machine.node(disks[0]))
        site = Site(machine, machine.node(disks[1]))
        site.create()
        machine.run("sed -i 's/^every_s = .*/every_s = 2/' /data/config/machine/replicator.toml")
        site.start()
        load = Load(machine)
        load.start()
        try:
            protect_live(machine, site, load)
            rng = random.Random(seed)
            for _ in range(scaled(1, 2, 10)):
                boundaries(machine, site, load, rng, VOLUMES)
            one_moment(machine, site, load)
            machine.run("kill -9 $(cat /run/replicator.pid)")
            load.goes_on()
            site.start_replicator()
            for name in VOLUMES:
                site.wait_synced(node(name))
            # What was agreed with the server is on the meta device: nothing is compared.
            read = site.status(node("vol0"))["read_bytes"]
            expect(read < MIB << 19, f"{read} bytes of vol0 were read after the replicator was killed")
            print(f"replicator killed: {read} bytes read of vol0", flush=True)
            boundaries(machine, site, load, rng, VOLUMES[:1])
            quiescent(machine, site, load)
            unprotect_live(machine, site, load)
        except GuestFailed:
            print(site.logs(), machine.attempt("dmsetup table; dmsetup status")[1], flush=True)
            raise
        machine.run("kill $(cat /run/replicator.pid); sleep 1; rmmod dm_cbt")
        machine.shut_down()
    return 0


if __name__ == "__main__":
    sys.exit(main())
