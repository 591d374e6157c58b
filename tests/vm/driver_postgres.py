#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL in a machine, its data on one volume and its log on another, both put under the driver while it works,
replicated to a process server on this host. Each moment of both volumes, at points of both and at arbitrary ones, is
restored on the host and given to a machine of its own: the file systems replay their journals, the database starts, holds
all that was committed before the moment and nothing that was begun after it, and is whole. Data of one moment with a log of an
older one is noticed.

Usage: driver_postgres.py [--fs ext4|xfs|btrfs] [--line LINE] [SEED] (default: HERALD_SEED, or a new one, which is printed)"""
import argparse
import json
import os
import pathlib
import random
import shutil
import sys
import tempfile

import database
import driver
import filesystems
from filesystems import FILESYSTEMS, Filesystem
from machine import Disk, GuestFailed, Machine, scaled
from site_on_host import HostSite

MIB = {"data": 128, "log": 64, "meta": 1}
VOLUMES = ("data", "log")
NODE = {name: f"/dev/mapper/{name}" for name in MIB}
MOUNT = {name: f"/mnt/{name}" for name in VOLUMES}
# Brought back and looked at in one machine.
AT_ONCE = 6


def make_volumes(machine: Machine, filesystem: Filesystem, disk: str) -> None:
    at = 2048
    for name, mib in MIB.items():
        machine.run(f"DM_DISABLE_UDEV=1 dmsetup create --noudevsync {name} --table '0 {mib << 11} linear {disk} {at}'")
        at += mib << 11
    for name in VOLUMES:
        filesystems.make(machine, filesystem, NODE[name], MOUNT[name])


class Moment:
    """One of both volumes, and its images."""

    def __init__(self, folder: pathlib.Path, what: str, time_ns: int):
        self.what, self.time_ns = what, time_ns
        self.images = {name: folder / f"{what}-{name}.img".replace(" ", "-") for name in VOLUMES}

    def disks(self, number: int) -> list[Disk]:
        return [Disk("virtio-blk", image=self.images[name], serial=f"{number}-{name}") for name in VOLUMES]


def boundaries(site: HostSite, ids: dict[str, str], rng: random.Random, first_ns: int, last_ns: int, count: int) -> list[Moment]:
    moments, refused = [], 0
    while len(moments) < count:
        time_ns = rng.randint(first_ns, last_ns)
        moment = Moment(site.folder, f"boundary {len(moments) + 1}", time_ns)
        try:
            said = [site.restore_moment(ids[name], time_ns, moment.images[name]) for name in VOLUMES]
        except GuestFailed as error:
            # A span that is fuzzy for a reason, a ring that overflowed on a busy host, is no boundary.
            if "is not restorable" not in str(error) or refused > count:
                raise
            refused += 1
            print(f"another moment, as {error}", flush=True)
            for image in moment.images.values():
                image.unlink(missing_ok=True)
            continue
        print(f"{moment.what}: {(time_ns - first_ns) / 1e9:.3f} s into the load; positions "
              f"{' and '.join(str(words['position']) for words in said)}", flush=True)
        moments.append(moment)
    return moments


def tagged(site: HostSite, ids: dict[str, str], tag: str, number: int) -> Moment:
    times = []
    for name in VOLUMES:
        points = json.loads(site.herald("points", ids[name], "--json"))["points"]
        times += [point["time_ns"] for point in points if point["id"] == tag]
    if len(times) != 2 or times[0] != times[1]:
        raise GuestFailed(f"tag {tag} is not one moment of both volumes: {times}")
    moment = Moment(site.folder, f"point {number}", times[0])
    for name in VOLUMES:
        site.restore(ids[name], ("--point", tag), moment.images[name])
    return moment


def look(machine: Machine, filesystem: Filesystem, load: database.Load, moment: Moment, disks: list[Disk]) -> str:
    nodes = {name: machine.node(disk) for name, disk in zip(VOLUMES, disks)}
    for name in VOLUMES:
        filesystems.mount(machine, filesystem, nodes[name], MOUNT[name])
    database.start(machine, MOUNT["data"])
    said = load.check(machine, MOUNT["data"], moment.time_ns)
    for name in VOLUMES:
        filesystems.unmount_clean(machine, filesystem, nodes[name], MOUNT[name])
    return said


def check(initramfs, name: str, filesystem: Filesystem, load: database.Load, moments: list[Moment]) -> None:
    disks = [moment.disks(number) for number, moment in enumerate(moments)]
    with Machine(name, initramfs, sum(disks, []), memory_mib=1536) as machine:
        machine.boot()
        for moment, pair in zip(moments, disks):
            try:
                said = look(machine, filesystem, load, moment, pair)
            except GuestFailed as error:
                raise GuestFailed(f"{moment.what} ({moment.time_ns}): {error}") from error
            print(f"{moment.what}: {said}; clean", flush=True)
        machine.shut_down()


def notices(initramfs, name: str, filesystem: Filesystem, load: database.Load, moment: Moment) -> None:
    """That the checks look at what they should: a log that is older than the data is a defect to them."""
    try:
        check(initramfs, name, filesystem, load, [moment])
    except GuestFailed as error:
        if not any(words in str(error) for words in ("PostgreSQL does not start", "was committed before the moment")):
            raise
        print(f"a log that is older than the data is noticed: {' '.join(str(error).split())[-300:]}", flush=True)
        return
    raise AssertionError("a log older than the data was not noticed")


def run_load(machine: Machine, site: HostSite, load: database.Load) -> tuple[dict[str, str], list[str], int, int]:
    """Ids of the volumes, tags of both, the first and the last moment of the load after they were protected."""
    load.start()
    site.cbtctl(f"format-meta {NODE['meta']} --disk {NODE['data']}")
    ids = {"data": site.protect(NODE["data"], NODE["meta"]), "log": site.protect(NODE["log"])}
    first_ns = load.newest_ns()
    tags = []
    for _ in range(scaled(1, 1, 3)):
        load.goes_on(scaled(150, 150, 1000))
        tag = json.loads(site.cbtctl(f"tag --disks {NODE['data']},{NODE['log']} --json"))
        if not tag["ok"]:
            raise GuestFailed(f"tag --disks: {tag}")
        tags.append(tag["tag"])
        load.goes_on(scaled(100, 100, 500))
    load.stop()
    last_ns = max(times[-1] for _, times in load.acks.values())
    for name in VOLUMES:
        site.point_after(NODE[name], last_ns)
    return ids, tags, first_ns, last_ns


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fs", choices=FILESYSTEMS, default="ext4")
    parser.add_argument("--line", default="6.1")
    parser.add_argument("seed", nargs="?", type=int)
    words = parser.parse_args()
    seed = words.seed or int(os.environ.get("HERALD_SEED") or random.randrange(1, 1 << 31))
    filesystem = FILESYSTEMS[words.fs]
    database.programs()
    kernel = driver.kernel_or_skip(words.line)
    print(f"{kernel.release}: {words.fs}, seed {seed} (repeat with --fs {words.fs} {seed})", flush=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="herald-postgres-"))
    name = f"driver-postgres-{words.fs}"
    try:
        tar = database.make_cluster(folder)
        initramfs = filesystems.into(database.into(driver.with_driver(kernel)), filesystem)
        with HostSite(folder) as site:
            disks = [Disk("virtio-blk", sum(MIB.values()) + 2, serial="volumes"),
                     Disk("virtio-blk", image=tar, serial="cluster")]
            with Machine(name, site.into(initramfs), disks, memory_mib=1536, network=True) as machine:
                machine.boot()
                driver.load(machine)
                make_volumes(machine, filesystem, machine.node(disks[0]))
                database.unpack(machine, machine.node(disks[1]), MOUNT["data"], MOUNT["log"])
                database.start(machine, MOUNT["data"])
                site.connect(machine)
                load = database.Load(machine)
                try:
                    ids, tags, first_ns, last_ns = run_load(machine, site, load)
                except GuestFailed:
                    print(site.logs(), machine.attempt("dmsetup status; tail /run/pg/log")[1], flush=True)
                    raise
                print(f"{sum(len(numbers) for numbers, _ in load.acks.values())} commits, "
                      f"{(last_ns - first_ns) / 1e9:.0f} s of them under the driver", flush=True)
                # The disaster.
                machine.power_cut()
            rng = random.Random(seed)
            moments = [tagged(site, ids, tag, number) for number, tag in enumerate(tags, start=1)]
            moments += boundaries(site, ids, rng, first_ns, last_ns, scaled(2, 2, 20))
            older_ns = (first_ns + last_ns) // 2
            older = Moment(folder, "older log", last_ns)
            site.restore_moment(ids["data"], last_ns, older.images["data"])
            site.restore_moment(ids["log"], older_ns, older.images["log"])
            for at in range(0, len(moments), AT_ONCE):
                check(initramfs, f"{name}-restored", filesystem, load, moments[at:at + AT_ONCE])
            notices(initramfs, f"{name}-older", filesystem, load, older)
    finally:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
