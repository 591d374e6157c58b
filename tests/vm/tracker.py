#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The module-free tracker on each kernel and each kind of disk: the programs load, attach and resume;
each way of changing a disk marks its blocks; no write is lost between bursts in flight and a drainer in
a tight loop; the largest disk is tracked to its end; what cannot be tracked is refused by name."""
import sys

import kernels
from initramfs import Initramfs
from machine import BUILD, TIER, Disk, Machine, kernel_lines, skip_unless_possible

MIB = 8
# Emulated, the counts of the tier below are what a run has time for.
GUEST_TIER = "nightly" if TIER == "nightly" else "check"


def disks_of(kernel) -> tuple[str, list[Disk]]:
    disks = [Disk("virtio-blk", MIB, serial="tracked-vb"),
             Disk("virtio-scsi", MIB, serial="tracked-scsi"),
             Disk("nvme", MIB, serial="tracked-nvme"),
             Disk("sata", MIB, serial="tracked-sata")]
    # The cloud flavour of 6.1 knows the older ATA controller only.
    return ("q35" if kernel.has_option("SATA_AHCI") else "pc"), disks


def passed(output: str) -> str:
    last = output.splitlines()[-1]
    if "SKIPPED" in output or "All tests passed" not in last:
        raise AssertionError(f"not all passed: {output}")
    return last


def race_on_each_kind(kernel) -> None:
    chipset, disks = disks_of(kernel)
    initramfs = Initramfs(kernel).modules(
        "virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod", "loop", "ahci" if chipset == "q35" else "ata_piix")
    initramfs.program("mkfs.ext4", "addpart", "delpart",
                      *(BUILD / f"tests/e2e_tracker_{name}" for name in ("attach", "device", "race")))
    with Machine(f"tracker-{kernel.line}", initramfs, disks, chipset=chipset) as machine:
        print(f"{kernel.release}: ready in {machine.boot():.1f} s", flush=True)
        # On loop devices of the guest, as on the host: attach, resume, gaps, kills at every step.
        tests = "" if TIER != "check" else "'~a drainer killed after any step*'"
        said = machine.run(f"HERALD_TIER={GUEST_TIER} e2e_tracker_attach {tests}", timeout=900)
        print(f"{kernel.line}: attach: {passed(said)}", flush=True)
        for disk in disks:
            node = machine.node(disk)
            said = machine.run(f"HERALD_SCRATCH_DISK={node} e2e_tracker_device")
            missing = [row for row in said.splitlines() if row.startswith("this disk")]
            print(f"{kernel.line}: {disk.kind}: {passed(said)} {'; '.join(missing)}", flush=True)
            scheduler = machine.run(f"cat /sys/block/{node.removeprefix('/dev/')}/queue/scheduler")
            said = machine.run(f"HERALD_TIER={GUEST_TIER} HERALD_SCRATCH_DISK={node} "
                               "e2e_tracker_race 'no write is lost*'", timeout=900)
            rounds = [row for row in said.splitlines() if "rounds lost" in row]
            print(f"{kernel.line}: {disk.kind} ({scheduler}): {passed(said)}\n  " + "\n  ".join(rounds), flush=True)
        machine.shut_down()


def limits_and_refusals(kernel) -> None:
    initramfs = Initramfs(kernel).modules("virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod", "dm_mod", "lzo-rle", "zram")
    initramfs.program("dmsetup", BUILD / "tests/e2e_tracker_device")
    largest = Disk("nvme", serial="largest", blockdev={"driver": "null-co", "size": 64 << 40, "read-zeroes": True})
    path = Disk("virtio-blk", MIB, serial="one-path")
    shared = Disk("", MIB, id="shared")
    with Machine(f"tracker-limits-{kernel.line}", initramfs, [largest, path, shared], memory_mib=1536,
                 devices=("nvme-subsys,id=subsystem", "nvme,serial=shared,subsys=subsystem",
                          "nvme-ns,drive=shared,nsid=1,shared=on")) as machine:
        machine.boot()

        def one(node: str, test: str) -> str:
            said = machine.run(f"HERALD_SCRATCH_DISK={node} e2e_tracker_device '{test}'", timeout=300)
            passed(said)
            return next((row for row in said.splitlines() if "cannot be tracked" in row), "")

        one(machine.node(largest), "the largest disk is tracked to its last block")
        print(f"{kernel.line}: 64 TiB: tracked to its last block", flush=True)
        node = machine.node(path)
        sectors = (MIB << 20) // 512
        machine.run(f"dmsetup create --noudevsync --uuid mpath-of-the-test stacked --table '0 {sectors} linear {node} 0'")
        one(node, "one path of a multipath device is refused")
        machine.run("echo 8M >/sys/block/zram0/disksize")
        head = machine.run("ls -d /sys/block/nvme*n1 | while read d; do test -e $d/mq || echo /dev/${d##*/}; done")
        for refused in ("/dev/dm-0", "/dev/zram0", head):
            print(f"{kernel.line}: {one(refused, 'a bio-based device is refused by name')}", flush=True)
        machine.shut_down()


def main() -> int:
    skip_unless_possible()
    for line in kernel_lines():
        race_on_each_kind(kernels.find(line))
        limits_and_refusals(kernels.find(line))
    return 0


if __name__ == "__main__":
    sys.exit(main())
