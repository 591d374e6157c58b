#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The machine itself: every kind of disk is there, a command's failure is a failure, a complaint of the
kernel is one too, and a power cut loses what was not flushed and keeps what was."""
import pathlib
import sys
import tempfile

import kernels
from initramfs import Initramfs
from lossy_disk import LossyDisk
from machine import Disk, GuestFailed, Machine, kernel_lines, scaled, skip_unless_possible


def expect_failure(what: str, words: str, action) -> None:
    try:
        action()
    except GuestFailed as failure:
        if words not in str(failure):
            raise AssertionError(f"{what}: said something else: {failure}") from failure
        print(f"{what}: noticed", flush=True)
        return
    raise AssertionError(f"{what}: not noticed")


def failures_are_noticed(initramfs: Initramfs) -> None:
    with Machine(f"harness-failures-{initramfs.kernel.line}", initramfs) as machine:
        print(f"{initramfs.kernel.release}: ready in {machine.boot():.1f} s", flush=True)
        expect_failure("a command's status", "status 3", lambda: machine.run("exit 3"))
        machine.run("sleep 8", timeout=12)
        machine.look_for_complaints()
        # It is said where it hangs.
        machine.tolerate("Call Trace")
        expect_failure("a command without end", "Show Blocked State", lambda: machine.run("sleep 1000", timeout=2))
        machine.power_cut()
        machine.boot()
        machine.run("echo 'BUG: a lie' >/dev/kmsg")
        expect_failure("a kernel that complains", "complains", machine.shut_down)
        machine._send("echo c >/proc/sysrq-trigger", 0)
        expect_failure("a panic", "ended by itself", lambda: machine.run("true", timeout=60))
        machine.tolerate("sysrq triggered crash")


def cut_loses_what_was_not_flushed(initramfs: Initramfs, folder: pathlib.Path, kind: str) -> None:
    disk = Disk(kind, backend=LossyDisk(folder, f"{kind}-{initramfs.kernel.line}", 16, seed=1), serial="lossy")
    node = {"virtio-blk": "vda", "virtio-scsi": "sda", "nvme": "nvme0n1"}[kind]
    with Machine(f"harness-cut-{kind}-{initramfs.kernel.line}", initramfs, [disk]) as machine:
        machine.boot()
        # Flushed; then 256 writes past the guest's page cache, with no flush.
        machine.run(f"""
            yes flushed | dd of=/dev/{node} bs=64k count=128 iflag=fullblock oflag=direct conv=fsync
            yes unflushed | dd of=/dev/{node} bs=4k count=256 seek=1024 iflag=fullblock oflag=direct""")
        machine.power_cut()
        fates = disk.backend.outcomes
        machine.boot()
        machine.run(f"yes flushed | head -c 4194304 | cmp - /dev/{node} -n 4194304")
        after = machine.run(f"dd if=/dev/{node} bs=4k skip=1024 count=256 iflag=direct status=none | grep -ac unflushed")
        machine.shut_down()
    print(f"power cut of {kind}: {dict(fates)}; {after} lines of them left", flush=True)
    if min(fates["kept"], fates["dropped"], fates["torn"]) < 10 or sum(fates.values()) < 256:
        raise AssertionError("the unflushed writes did not have each fate")


def main() -> int:
    skip_unless_possible()
    for line in kernel_lines():
        initramfs = Initramfs(kernels.find(line)).modules("virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod")
        failures_are_noticed(initramfs)
        with tempfile.TemporaryDirectory(prefix="herald-vm-") as folder:
            for kind in ("virtio-blk", "virtio-scsi", "nvme")[:scaled(1, 1, 3)]:
                cut_loses_what_was_not_flushed(initramfs, pathlib.Path(folder), kind)
    return 0


if __name__ == "__main__":
    sys.exit(main())
