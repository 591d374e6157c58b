# SPDX-License-Identifier: Apache-2.0
"""The compiler and the tools that a kernel's modules are built with: the host's for kernels of its own
time, those of a newer Debian for newer ones, in a folder that they believe to be the whole system.

Promise: `of(kernel).run(words, folders)` runs a command that sees the folders at the places they have
here, and nothing of it stays mounted.
Owns: toolchains/ in the cache (450 MB each, made by debootstrap in a minute; needs root).
Failure: NoKernel, with what the tools said.
"""
import os
import pathlib
import shutil
import subprocess

from kernels import Kernel, NoKernel
from packages import CACHE, KEYRING, locked, mirror

# Line -> Debian's name of the system, its compiler, and what else the kernel's build programs load.
NEWER = {"7": ("trixie", "gcc-14", ("make", "libelf1t64", "libssl3t64", "pahole", "kmod"))}
HOST_COMPILER = "gcc-12"
SECONDS_MAX = 600


class Toolchain:
    """The host's own."""
    compiler = HOST_COMPILER

    def run(self, words: list[str], folders=()) -> subprocess.CompletedProcess:
        return subprocess.run(words, capture_output=True, text=True, timeout=SECONDS_MAX,
                              env={**os.environ, "LC_ALL": "C", "MAKEFLAGS": ""})


class Newer(Toolchain):
    def __init__(self, root: pathlib.Path, compiler: str):
        self.root, self.compiler = root, compiler

    def run(self, words: list[str], folders=()) -> subprocess.CompletedProcess:
        # In a mount namespace of its own: however it ends, nothing stays mounted.
        script = ["set -e", f"mount -t proc proc {self.root}/proc"]
        for folder in folders:
            script += [f"mkdir -p {self.root}{folder}", f"mount --bind {folder} {self.root}{folder}"]
        script += [f'exec chroot {self.root} "$@"']
        return subprocess.run(["unshare", "--mount", "sh", "-c", "\n".join(script), "sh", *words], capture_output=True,
                              text=True, timeout=SECONDS_MAX,
                              env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "HOME": "/root"})


def _make(system: str, compiler: str, others, target: pathlib.Path) -> None:
    work = target.with_suffix(".new")
    shutil.rmtree(work, ignore_errors=True)
    command = ["debootstrap", "--variant=minbase", f"--keyring={KEYRING}", f"--include={','.join((compiler, *others))}",
               system, str(work), mirror(system)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        raise NoKernel(f"{compiler} of {system}: debootstrap is not installed") from None
    if done.returncode != 0:
        raise NoKernel(f"{' '.join(command)}: {done.stdout[-1000:]}{done.stderr[-1000:]}")
    shutil.rmtree(work / "var/cache/apt", ignore_errors=True)
    work.rename(target)


def of(kernel: Kernel) -> Toolchain:
    if kernel.line not in NEWER:
        return Toolchain()
    system, compiler, others = NEWER[kernel.line]
    target = CACHE / "toolchains" / f"{system}-{compiler}"
    with locked(CACHE / "toolchains.lock"):
        target.parent.mkdir(exist_ok=True)
        if not target.exists():
            _make(system, compiler, others, target)
    return Newer(target, compiler)
