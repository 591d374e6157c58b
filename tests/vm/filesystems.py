# SPDX-License-Identifier: Apache-2.0
"""What differs between the file systems of the tests with a whole site: how each is made, mounted as after a
power cut, and checked."""
import dataclasses

from initramfs import Initramfs
from machine import Machine


@dataclasses.dataclass
class Filesystem:
    name: str
    make: str
    check: str
    programs: tuple[str, ...]
    # Before another image of the same file system is mounted.
    forget: str = "true"


# mkfs.xfs makes a file system of less than 300 MiB for its own tests only.
FILESYSTEMS = {entry.name: entry for entry in (
    Filesystem("ext4", "mkfs.ext4 -q", "e2fsck -fn", ("mkfs.ext4", "e2fsck")),
    Filesystem("xfs", "TEST_DIR=1 TEST_DEV=1 QA_CHECK_FS=1 mkfs.xfs -q -f", "xfs_repair -n", ("mkfs.xfs", "xfs_repair")),
    Filesystem("btrfs", "mkfs.btrfs -q --mixed -m single -d single", "btrfs check --readonly", ("mkfs.btrfs", "btrfs"),
               "btrfs device scan --forget"))}


def into(initramfs: Initramfs, filesystem: Filesystem) -> Initramfs:
    return initramfs.modules(filesystem.name).program(*filesystem.programs)


def make(machine: Machine, filesystem: Filesystem, node: str, folder: str) -> None:
    machine.run(f"{filesystem.make} {node} && mkdir -p {folder} && mount -t {filesystem.name} {node} {folder}")


def mount(machine: Machine, filesystem: Filesystem, node: str, folder: str) -> None:
    """It replays its journal."""
    machine.run(f"mkdir -p {folder} && mount -t {filesystem.name} {node} {folder}")


def unmount_clean(machine: Machine, filesystem: Filesystem, node: str, folder: str) -> None:
    machine.run(f"umount {folder} && {filesystem.check} {node} && {filesystem.forget}", timeout=300)
