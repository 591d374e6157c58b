#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A 6.1 kernel that looks for the driver's bugs by itself: KASAN (use after free, out of bounds), lockdep
(lock inversion), sleeping while atomic, kmemleak, UBSAN, fault injection, coverage of modules.

Run as a program it builds the kernel, where the cache does not have it, and names its folder.
Promise: built from Debian's linux-source-6.1 once for each set of OPTIONS (13 minutes of one processor,
at the lowest priority), then cached; not again for each new version of the package. An option that
the kernel's own rules dropped is an error.
Owns: debug/ in the cache (one folder per set of options; the newest is kept).
"""
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from kernels import Kernel, NoKernel, keep_newest
from packages import CACHE, NoPackage, Suite, locked, said

SOURCE = "linux-source-6.1"
LINE = "6.1-debug"

# On top of `make tinyconfig`. What a machine of tests/vm needs, what the driver needs, and what looks.
OPTIONS = {
    "y": """
        64BIT SMP PREEMPT PRINTK BUG BASE_FULL FUTEX EPOLL SIGNALFD TIMERFD EVENTFD SHMEM AIO IO_URING
        ADVISE_SYSCALLS MEMBARRIER POSIX_TIMERS FILE_LOCKING FHANDLE INOTIFY_USER MULTIUSER BLK_DEV_INITRD
        HIGH_RES_TIMERS NO_HZ_IDLE BINFMT_ELF BINFMT_SCRIPT PROC_FS PROC_SYSCTL SYSFS TMPFS DEVTMPFS DEBUG_FS
        KALLSYMS KALLSYMS_ALL MODULES MODULE_UNLOAD KERNEL_GZIP COMPACTION MAGIC_SYSRQ
        ACPI PCI PCI_MSI PCIEPORTBUS HOTPLUG_PCI HOTPLUG_PCI_PCIE TTY UNIX98_PTYS SERIAL_8250 SERIAL_8250_CONSOLE RTC_CLASS RTC_DRV_CMOS
        HW_RANDOM HW_RANDOM_VIRTIO RANDOM_TRUST_CPU NET UNIX INET PACKET NETDEVICES ETHERNET VIRTIO_NET
        BLOCK BLK_DEV BLK_DEV_LOOP VIRTIO_MENU VIRTIO_PCI VIRTIO_BLK SCSI BLK_DEV_SD SCSI_LOWLEVEL SCSI_VIRTIO BLK_DEV_NVME
        MD BLK_DEV_DM DM_SNAPSHOT DM_ERA DM_LOG_WRITES DM_FLAKEY DM_DELAY DM_THIN_PROVISIONING DM_ZERO
        EXT4_FS XFS_FS MISC_FILESYSTEMS LIBCRC32C CRYPTO_CRC32C BLK_DEV_INTEGRITY
        SLUB SLUB_DEBUG KASAN KASAN_GENERIC KASAN_OUTLINE KASAN_VMALLOC STACKTRACE
        DEBUG_KERNEL PROVE_LOCKING DEBUG_ATOMIC_SLEEP DEBUG_LIST DEBUG_KMEMLEAK DETECT_HUNG_TASK
        UBSAN UBSAN_BOUNDS BUG_ON_DATA_CORRUPTION DEBUG_INFO_NONE
        RUNTIME_TESTING_MENU FAULT_INJECTION FAULT_INJECTION_DEBUG_FS FAILSLAB FAIL_PAGE_ALLOC FAIL_MAKE_REQUEST FAIL_IO_TIMEOUT
        FTRACE ENABLE_DEFAULT_TRACERS GCOV_KERNEL""",
    "m": "BLK_DEV_RAM BLK_DEV_NULL_BLK SCSI_DEBUG",
    "n": "SLOB CC_OPTIMIZE_FOR_SIZE KERNEL_XZ PREEMPT_NONE MODULE_SIG UBSAN_TRAP SECURITY LEGACY_PTYS "
         "PREEMPT_DYNAMIC KASAN_INLINE UBSAN_SHIFT UBSAN_BOOL UBSAN_ENUM",
    "val": {"NR_CPUS": 8, "DEBUG_KMEMLEAK_MEM_POOL_SIZE": 64000, "LOG_BUF_SHIFT": 18, "DEFAULT_HUNG_TASK_TIMEOUT": 60},
}


def _make(source: pathlib.Path, build: pathlib.Path, *words) -> None:
    command = ["nice", "-n", "19", "make", "-C", str(source), f"O={build}", f"-j{os.cpu_count()}", *words]
    with open(build / "make.log", "ab") as log:
        if subprocess.run(command, stdout=log, stderr=subprocess.STDOUT).returncode != 0:
            tail = "\n".join((build / "make.log").read_text(errors="replace").splitlines()[-30:])
            raise NoKernel(f"{' '.join(command)}:\n{tail}")


def _configure(source: pathlib.Path, build: pathlib.Path) -> None:
    _make(source, build, "tinyconfig")
    words = []
    for option, names in (("-d", OPTIONS["n"]), ("-e", OPTIONS["y"]), ("-m", OPTIONS["m"])):
        words += [word for name in names.split() for word in (option, name)]
    for name, value in OPTIONS["val"].items():
        words += ["--set-val", name, str(value)]
    said(str(source / "scripts/config"), "--file", str(build / ".config"), *words)
    _make(source, build, "olddefconfig")
    rows = set((build / ".config").read_text().splitlines())
    wanted = {f"CONFIG_{name}={value}" for value in "ym" for name in OPTIONS[value].split()}
    wanted |= {f"CONFIG_{name}={value}" for name, value in OPTIONS["val"].items()}
    if wanted - rows:
        raise NoKernel(f"the kernel's own rules dropped {', '.join(sorted(wanted - rows))}")


def _prune(source: pathlib.Path, build: pathlib.Path) -> None:
    """What no module needs to be built: five sixths of two gigabytes."""
    for folder in (source, build):
        for path, folders, files in os.walk(folder):
            inside = pathlib.Path(path).relative_to(folder)
            if inside.parts[:1] in (("scripts",), ("tools",)):
                continue
            for name in files:
                file = pathlib.Path(path) / name
                if file.suffix in (".c", ".S", ".o", ".a", ".cmd", ".rst", ".dts", ".dtsi", ".gcno") or name.startswith("vmlinux"):
                    # The linker script of modules and the like stay; crt files are compiled into each module.
                    if not (inside.parts[:1] == ("arch",) and file.suffix == ".o" and "lib" in inside.parts):
                        file.unlink()
    shutil.rmtree(source / "Documentation", ignore_errors=True)
    for other in (source / "arch").iterdir():
        if other.is_dir() and other.name != "x86":
            shutil.rmtree(other)


def _build(target: pathlib.Path) -> None:
    source, build = target / "source", target / "build"
    build.mkdir(parents=True)
    suite = Suite()
    with tempfile.TemporaryDirectory(dir=target, prefix="fetching-") as work:
        try:
            suite.unpack([SOURCE], pathlib.Path(work))
        except NoPackage:
            suite.update()
            suite.unpack([SOURCE], pathlib.Path(work))
        said("tar", "-xJf", str(next(pathlib.Path(work).glob("usr/src/linux-source-*.tar.xz"))), "-C", work)
        (pathlib.Path(work) / SOURCE).rename(source)
    _configure(source, build)
    _make(source, build, "bzImage", "modules")
    _make(source, build, "modules_install", f"INSTALL_MOD_PATH={target}")
    release = (build / "include/config/kernel.release").read_text().strip()
    boot = target / "boot"
    boot.mkdir()
    shutil.copy(build / "arch/x86/boot/bzImage", boot / f"vmlinuz-{release}")
    shutil.copy(build / ".config", boot / f"config-{release}")
    _prune(source, build)


def place() -> pathlib.Path:
    facts = repr(OPTIONS) + SOURCE
    return CACHE / "debug" / hashlib.sha256(facts.encode()).hexdigest()[:16]


def cached() -> bool:
    return (place() / "complete").exists()


def find() -> Kernel:
    """From the cache, or after a long time."""
    target = place()
    with locked(CACHE / "debug.lock"):
        if not cached():
            shutil.rmtree(target, ignore_errors=True)
            try:
                _build(target)
            except NoPackage as error:
                raise NoKernel(f"the debug kernel: {error}") from error
            (target / "complete").touch()
            keep_newest(target.parent, "", 1)
    return Kernel(LINE, target)


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    print(find().root)
