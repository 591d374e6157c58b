# SPDX-License-Identifier: Apache-2.0
"""What the tests of the driver have in common: a machine with dm_cbt.ko in it, tables made and taken out."""
import sys

import kernels
import module
from initramfs import Initramfs
from machine import SKIPPED, Machine, skip_unless_possible

NEEDED = ("virtio_pci", "virtio_blk", "dm_mod", "ext4")


def kernel_or_skip(line: str) -> kernels.Kernel:
    """Ends the test, loudly, where no package of that kernel is to be had."""
    skip_unless_possible()
    try:
        kernel = kernels.find(line)
        kernels.headers(kernel)
        return kernel
    except kernels.NoKernel as reason:
        print(f"SKIPPED: kernel {line} is not offered by the package registry reached from here: {reason}")
        sys.exit(SKIPPED)


def with_driver(kernel: kernels.Kernel, *make_words: str, edits=()) -> Initramfs:
    # The programs of device-mapper wait for a udevd that is not there, unless told.
    built = module.build(kernel, module.DRIVER, *make_words, edits=edits)
    initramfs = Initramfs(kernel).modules(*NEEDED).module(built)
    return initramfs.program("dmsetup", "mkfs.ext4")


def load(machine: Machine, *parameters: str) -> None:
    machine.run(f"insmod /modules/dm_cbt.ko {' '.join(parameters)}")


def sectors(machine: Machine, node: str) -> int:
    return int(machine.run(f"blockdev --getsz {node}"))


def create(machine: Machine, name: str, origin: str, meta="-", *options: str) -> str:
    """A tracked disk above the origin; its node."""
    words = f" {len(options)} {' '.join(options)}" if options else ""
    machine.run(f"DM_DISABLE_UDEV=1 dmsetup create --noudevsync {name} "
                f"--table '0 {sectors(machine, origin)} cbt {origin} {meta}{words}'")
    return f"/dev/mapper/{name}"


def status(machine: Machine, name: str) -> str:
    return machine.run(f"dmsetup status {name}")


def remove(machine: Machine, name: str) -> None:
    machine.run(f"DM_DISABLE_UDEV=1 dmsetup remove --noudevsync {name}")
