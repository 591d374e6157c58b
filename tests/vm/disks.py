#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The whole replicator on each kind of disk there is in a machine: each is known by its own name (WWN,
serial number, partition table), a point under load restores what an independent program read from it,
and a disk that was taken out, changed elsewhere and put back is noticed and compared."""
import os
import sys

import kernels
from initramfs import Initramfs
from machine import Disk, Machine, kernel_lines, skip_unless_possible
from site_in_guest import Site, with_site

MIB = 24
MODULES = ("virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod")


def disks_of() -> dict[str, Disk]:
    return {"data": Disk("virtio-blk", 2048, serial="keeps-data"),
            "serial": Disk("virtio-blk", MIB, serial="protected-vb"),
            "wwn": Disk("virtio-scsi", MIB, serial="protected-scsi", wwn="0x5000c500a0000001"),
            "nvme": Disk("nvme", MIB, serial="protected-nvme"),
            "ata": Disk("sata", MIB, serial="protected-ata"),
            "table": Disk("virtio-scsi", MIB, serial="00000000", options=",device_id=0000")}


IDENTITIES = {"serial": "serial:protected-vb", "wwn": "wwn:naa.5000c500a0000001", "nvme": "wwn:nvme.",
              "ata": "wwn:t10.ATA QEMU HARDDISK protected-ata", "table": "gpt:"}

# Files written, overwritten, deleted and trimmed until the file `stop` appears.
LOAD = """
number=0
rm -f /run/stop
while ! test -e /run/stop; do
    number=$((number + 1))
    dd if=/dev/urandom of=/mnt/$1/file$((number % 12)) bs=16k count=$((number % 7 * 5 + 1)) 2>/dev/null
    test $((number % 5)) = 0 && sync -f /mnt/$1/
    test $((number % 9)) = 0 && rm /mnt/$1/file$((number % 12))
    test $((number % 23)) = 0 && fstrim /mnt/$1
    sleep 0.1
done
"""


def partition(machine: Machine, name: str, node: str) -> str:
    """A GPT, one partition with an ext4, mounted; the partition's node."""
    machine.run(f"printf 'label: gpt\\nstart=2048\\n' | sfdisk -q {node}")
    first = machine.wait(f"ls {node}1 {node}p1 2>/dev/null | grep .")
    machine.run(f"mkfs.ext4 -q {first} && mkdir -p /mnt/{name} && mount -o discard {first} /mnt/{name}")
    return first


def points_under_load(machine: Machine, site: Site, nodes: dict[str, str]) -> None:
    for name, node in nodes.items():
        partition(machine, name, node)
    machine.run(f"cat >/run/load <<'END'\n{LOAD}\nEND")
    for name, node in nodes.items():
        site.protect(node)
        identity = site.status(node)["identity"]
        if not identity.startswith(IDENTITIES[name]):
            raise AssertionError(f"{node} is known as '{identity}', not as '{IDENTITIES[name]}...'")
    points = []
    for name, node in nodes.items():
        machine.run(f"sh /run/load {name} >/dev/null 2>&1 & sleep 2")
        points.append(site.tag(node, f"load-{name}"))
        machine.run("touch /run/stop; sleep 0.5")
    for point in points:
        site.check(point)
        print(f"{machine.kernel.line}: {point.node} is {site.status(point.node)['identity']}: "
              "a point under load restores exactly", flush=True)


def taken_out_and_changed(machine: Machine, site: Site, name: str, disk: Disk, node: str) -> None:
    machine.run(f"umount /mnt/{name}")
    machine.unplug(disk)
    machine.wait(f"! test -e /sys/block/{node.removeprefix('/dev/')}")
    # By somebody else, where no file system of the guest's would write.
    with open(disk.image, "r+b") as file:
        file.seek((MIB << 20) - (3 << 20))
        file.write(os.urandom(1 << 20))
    machine.plug(disk)
    node = machine.node(disk)
    if not any(site.said(words) for words in ("went away", "detached and attached again")):
        machine.wait("grep -Eq 'went away|detached and attached again' /data/replicator.log", 60)
    # The worker of the disk as it was may still be ending.
    machine.wait(f"cbtctl --socket /run/herald/replicator.sock status {node} --wait-synced --timeout 60", 120)
    machine.run(f"mount {node}1 /mnt/{name} 2>/dev/null || mount {node}p1 /mnt/{name}")
    machine.run(f"dd if=/dev/urandom of=/mnt/{name}/after bs=64k count=8 2>/dev/null; sync")
    point = site.tag(node, f"back-{name}")
    site.check(point)
    print(f"{machine.kernel.line}: {disk.kind} taken out, changed, put back as {node}: named, compared, exact",
          flush=True)


def all_kinds(kernel) -> None:
    chipset = "q35" if kernel.has_option("SATA_AHCI") else "pc"
    initramfs = with_site(Initramfs(kernel).modules(*MODULES, "ahci" if chipset == "q35" else "ata_piix"))
    disks = disks_of()
    with Machine(f"disks-{kernel.line}", initramfs, disks.values(), chipset=chipset, memory_mib=1536) as machine:
        machine.boot()
        site = Site(machine, machine.node(disks["data"]))
        try:
            site.create()
            site.start()
            nodes = {name: machine.node(disk) for name, disk in disks.items() if name != "data"}
            points_under_load(machine, site, nodes)
            for name in ("serial", "wwn", "nvme"):
                taken_out_and_changed(machine, site, name, disks[name], nodes[name])
        except BaseException:
            print(site.logs())
            raise
        machine.shut_down()


def main() -> int:
    skip_unless_possible()
    for line in kernel_lines("nightly"):
        all_kinds(kernels.find(line))
    return 0


if __name__ == "__main__":
    sys.exit(main())
