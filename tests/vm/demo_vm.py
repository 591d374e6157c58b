# SPDX-License-Identifier: Apache-2.0
"""What ./demo --vm runs: an LVM volume in a machine is put under the driver while files are written to it, replicated to
a process server on this host, and brought back here as it was at moments that nobody chose before.

Usage: demo_vm.py [--keep] [--seed N]"""
import argparse
import bisect
import hashlib
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import driver
from initramfs import Initramfs
from machine import Disk, GuestFailed, Machine
from site_on_host import HostSite

NODE, META = "/dev/vg/data", "/dev/vg/meta"
MIB = 96
MOMENTS = 8
LOAD_SECONDS = 20
# Where nothing tells LVM of devices, it looks and makes nodes by itself.
LVM_CONFIG = """devices { use_devicesfile = 0 obtain_device_list_from_udev = 0 external_device_info_source = "none" }
activation { udev_sync = 0 udev_rules = 0 monitoring = 0 }
global { event_activation = 0 use_lvmpolld = 0 }
backup { backup = 0 archive = 0 }
"""
# Numbered files that say what they hold; when each was on the disk goes to /run/acks before the next is begun.
LOAD = """
number=0
while ! test -e /run/stop; do
    number=$((number + 1))
    head -c $((number % 9 * 3000)) /dev/urandom >/run/body
    { echo $number $(md5sum </run/body | cut -c1-32); cat /run/body; } >/run/made
    dd if=/run/made of=/mnt/data/file$number bs=64k conv=fsync 2>/dev/null || { touch /run/load-failed; exit 1; }
    echo $number $(/usr/bin/date +%s%N) >>/run/acks
    head -c 60000 /dev/urandom >/mnt/data/scratch$((number % 5))
    test $number -gt 200 && rm /mnt/data/file$((number - 200))
done
"""
KEPT = 200
# Program -> Debian's package of it.
NEEDED = {"qemu-system-x86_64": "qemu-system-x86", "busybox": "busybox-static", "dmsetup": "dmsetup", "lvm": "lvm2",
          "modprobe": "kmod", "make": "make", "gcc-12": "gcc-12", "losetup": "mount", "e2fsck": "e2fsprogs"}


class Refused(Exception):
    pass


def requirements() -> None:
    if os.getuid() != 0:
        raise Refused("not root. What is brought back is mounted here for the check: sudo ./demo --vm")
    paths = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = [package for name, package in NEEDED.items() if not shutil.which(name, path=paths)]
    if missing:
        raise Refused(f"missing packages: {' '.join(missing)}. Install them: sudo tools/dev/install")


def step(text: str) -> None:
    bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
    print(f"\n{bold}{text}{plain}", flush=True)


def initramfs_of(kernel) -> Initramfs:
    initramfs = driver.with_driver(kernel).program("lvm", "date")
    initramfs.text("etc/lvm/lvm.conf", LVM_CONFIG)
    initramfs.folder("run/lock")
    return initramfs


def make_volume(machine: Machine, disk: str) -> None:
    machine.run(f"mkdir -p /run/lock/lvm && lvm pvcreate -q {disk} && lvm vgcreate -q vg {disk} && "
                f"lvm lvcreate -q -y -W n -L {MIB}m -n data vg && lvm lvcreate -q -y -W n -L 4m -n meta vg")
    machine.run(f"mkfs.ext4 -q {NODE} && mkdir -p /mnt/data && mount {NODE} /mnt/data")


def acks(machine: Machine) -> list[int]:
    """When each file was on the disk, by the machine's clock."""
    lines = [line.split() for line in machine.run("cat /run/acks").splitlines()]
    if [int(number) for number, _ in lines] != list(range(1, len(lines) + 1)):
        raise GuestFailed("acknowledgements are missing")
    return [int(time_ns) for _, time_ns in lines]


def whole(file: pathlib.Path) -> bool:
    head, _, body = file.read_bytes().partition(b"\n")
    return head.decode(errors="replace") == f"{file.name.removeprefix('file')} {hashlib.md5(body).hexdigest()}"


def there(folder: pathlib.Path, acked: int) -> tuple[int, str]:
    """The newest file, and what is wrong with any."""
    numbers = sorted(int(file.name.removeprefix("file")) for file in folder.glob("file*"))
    newest = numbers[-1] if numbers else 0
    if not acked <= newest <= acked + 1:
        return newest, f"file {acked} was on the disk, file {newest} is the newest"
    # The newest may be half made.
    for number in range(max(1, newest - KEPT + 1), acked + 1):
        file = folder / f"file{number}"
        if not file.exists():
            return newest, f"file {number} is missing"
        if not whole(file):
            return newest, f"file {number} is not whole"
    return newest, ""


def verify(image: pathlib.Path, acked: int) -> tuple[int, str]:
    """As after a power cut: mounted, which replays the journal, looked through, checked."""
    look = image.parent / "look"
    look.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", "-t", "ext4", image, look], check=True)
    try:
        newest, wrong = there(look, acked)
    finally:
        subprocess.run(["umount", look], check=True)
    done = subprocess.run(["e2fsck", "-fn", image], capture_output=True, text=True)
    return newest, wrong or ("" if done.returncode == 0 else "fsck")


def protect_and_load(machine: Machine, site: HostSite) -> tuple[str, list[int], int]:
    machine.run(f"cat >/run/load <<'END'\n{LOAD}\nEND")
    machine.run("sh /run/load >/dev/null 2>&1 &")
    machine.wait("test -s /run/acks")
    site.cbtctl(f"format-meta {META} --disk {NODE}")
    began = time.monotonic()
    disk = site.protect(NODE, META)
    print(f"{NODE} is under the driver and in sync after {time.monotonic() - began:.0f} s; its file system was never unmounted "
          "or frozen", flush=True)
    first_ns = acks(machine)[-1]
    step("3. Files are written; the replicator is killed on the way")
    time.sleep(LOAD_SECONDS / 2)
    machine.run("kill -9 $(cat /run/replicator.pid)")
    print("replicator killed with SIGKILL; writing goes on", flush=True)
    time.sleep(1)
    site.connect_replicator(machine)
    site.wait_synced(NODE)
    time.sleep(LOAD_SECONDS / 2)
    machine.run("touch /run/stop")
    machine.wait("! grep -qs '/run/[l]oad' /proc/[0-9]*/cmdline")
    times = acks(machine)
    site.point_after(NODE, times[-1])
    print(f"{len(times)} files were acknowledged, {(times[-1] - first_ns) / 1e9:.0f} s of it under the driver", flush=True)
    return disk, times, first_ns


def bring_back(site: HostSite, disk: str, times: list[int], first_ns: int, rng: random.Random, keep: bool) -> int:
    rows, wrong = [], 0
    moments, refused = sorted(rng.randint(first_ns, times[-1]) for _ in range(MOMENTS)), []
    for number, time_ns in enumerate(moments, start=1):
        image = site.folder / f"restored-{number}.img"
        acked = bisect.bisect_right(times, time_ns)
        try:
            said = site.restore_moment(disk, time_ns, image)
        except GuestFailed as error:
            if "is not restorable" not in str(error):
                raise
            refused.append(f"moment {number}: {str(error).split('restorable: ')[-1].strip()}")
            continue
        newest, why = verify(image, acked)
        wrong += bool(why)
        rows.append((f"{(times[-1] - time_ns) / 1e9:.3f} s", str(said["position"]), str(said["segments"]),
                     f"{said['mb_per_second']:.0f}", str(acked), str(newest), f"NO: {why}" if why else "yes"))
        if not keep:
            image.unlink()
    heads = ("BEFORE THE CUT", "POSITION", "SEGMENTS", "RESTORED MB/s", "ACKNOWLEDGED", "NEWEST FILE", "VERIFIED")
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    for row in (heads, *rows):
        print("  ".join(text.rjust(width) for text, width in zip(row[:-1], widths)) + "  " + row[-1])
    for text in refused:
        print(f"refused, as no boundary is there while a scan catches up: {text}")
    if not rows:
        print("None of these moments can be had; another --seed chooses others")
        return 1
    if wrong:
        print(f"{wrong} of {len(rows)} images are NOT a state that a power cut could have left")
        return 1
    print(f"All {len(rows)} images: the journal replays, fsck is clean, and each file that was acknowledged is there and whole")
    return 0


def story(folder: pathlib.Path, seed: int, keep: bool) -> int:
    step("1. A process server on this host, and a machine with a kernel of its own")
    kernel = driver.kernel_or_skip("6.1")
    initramfs = initramfs_of(kernel)
    with HostSite(folder) as site:
        disks = [Disk("virtio-blk", MIB + 16, serial="lvm")]
        with Machine("demo", site.into(initramfs), disks, network=True) as machine:
            print(f"Linux {kernel.release} boots in QEMU in {machine.boot():.0f} s; the server listens on port {site.port}")
            driver.load(machine)
            make_volume(machine, machine.node(disks[0]))
            site.connect(machine)
            print(f"dm_cbt is loaded; {NODE} is a volume of LVM of {MIB} MiB with ext4, mounted")
            step("2. The volume is protected while files are written to it")
            disk, times, first_ns = protect_and_load(machine, site)
            print(machine.run("dmsetup status vg-data"), flush=True)
            step("4. The machine loses its power; its disk is gone")
            machine.power_cut()
        step("5. Moments at random, brought back here and checked")
        print(f"seed {seed}", flush=True)
        return bring_back(site, disk, times, first_ns, random.Random(seed), keep)


def main() -> int:
    parser = argparse.ArgumentParser(prog="demo --vm")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--seed", type=int, default=random.randrange(1, 1 << 31))
    words = parser.parse_args()
    ended_by = []

    def on_signal(number, frame):
        # `with` and `finally` end what was started.
        ended_by.append(number)
        sys.exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)
    folder, kept = None, False
    try:
        requirements()
        folder = pathlib.Path(tempfile.mkdtemp(prefix="herald-demo-vm-"))
        status = story(folder, words.seed, words.keep)
        kept = words.keep
        return status
    except Refused as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except GuestFailed as error:
        # A terminal's Ctrl-C ends the machine, too, and that may be seen first.
        if ended_by:
            return 128 + ended_by[0]
        print(f"demo: {error}", file=sys.stderr)
        return 1
    finally:
        if kept:
            print(f"kept: {folder}")
        elif folder:
            shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
