# SPDX-License-Identifier: Apache-2.0
"""Kernel modules of ours, built for the kernels of tests/vm.

    file = module.build(kernel)                       # kernel/linux_cbt: dm_cbt.ko
    Initramfs(kernel).modules("dm_mod").module(file)

Promise: a warning is an error; a module that was built from the same sources for the same kernel
comes from the cache. What is built is a copy, so that builds for several kernels can run at once and
the tree stays clean.
Owns: modules/ in the cache (the newest two dozen).
Failure: BuildFailed, with what the compiler said; NoKernel.
"""
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

import kernels
import toolchain
from kernels import Kernel
from packages import CACHE, NoPackage, Suite, locked, said

ROOT = pathlib.Path(__file__).resolve().parents[2]
DRIVER = "kernel/linux_cbt"
# What the driver's sources include, at the places they expect it.
BESIDE = ("kernel/core", "include/herald/abi", "include/herald/limits.h")
KEPT = 24
# Said by the kernel's own build, not of our sources.
NOT_OURS = re.compile(r"the compiler differs from the one|You are using:|The kernel was built by:|Skipping BTF generation")


class BuildFailed(AssertionError):
    pass


def _sources(folder: str | pathlib.Path) -> dict[str, pathlib.Path]:
    """Path in the copy -> file: of the module, whose folder may be anywhere, and of what it includes."""
    found = {f"{_name(folder)}/{file.relative_to(ROOT / folder)}": file
             for file in (ROOT / folder).rglob("*") if file.is_file()}
    for name in BESIDE:
        path = ROOT / name
        for file in [path] if path.is_file() else path.rglob("*"):
            if file.is_file():
                found[str(file.relative_to(ROOT))] = file
    if not any(name.endswith("Kbuild") for name in found):
        raise BuildFailed(f"{folder}: there is no module")
    return dict(sorted(found.items()))


def _name(folder: str | pathlib.Path) -> str:
    return str(folder).lstrip("/")


def _digest(sources: dict[str, pathlib.Path], *facts: str) -> str:
    digest = hashlib.sha256(repr(facts).encode())
    for name, file in sources.items():
        digest.update(f"{name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:24]


def _make(kernel: Kernel, folder: str, work: pathlib.Path, *words: str) -> str:
    """Runs the kernel's build on the copy in `work`; what it said."""
    headers = kernels.headers(kernel)
    tools = toolchain.of(kernel)
    place = work / _name(folder)
    command = ["make", "-C", str(headers), f"M={place}", f"CC={tools.compiler}", f"-j{os.cpu_count()}",
               # Debian's headers come without the vmlinux that type information is derived from.
               "CONFIG_DEBUG_INFO_BTF_MODULES=", "KCFLAGS=-Werror", *words]
    done = tools.run(command, (kernels.root_of(headers), work))
    if done.returncode != 0:
        raise BuildFailed(f"{folder} for {kernel.release}: {' '.join(command)}\n"
                          f"{done.stdout[-4000:]}{done.stderr[-8000:]}")
    return done.stdout + done.stderr


def _copied(sources: dict[str, pathlib.Path], work: pathlib.Path) -> None:
    for name, file in sources.items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, work / name)


def _edit(work: pathlib.Path, edits) -> None:
    for name, before, after in edits:
        text = (work / name).read_text()
        if text.count(before) != 1:
            raise BuildFailed(f"{name}: what is to be broken is there {text.count(before)} times: {before}")
        (work / name).write_text(text.replace(before, after))


def build(kernel: Kernel, folder=DRIVER, *words: str, edits=()) -> pathlib.Path:
    """The module's file. `words` go to make: "V=1", "GCOV_PROFILE=y". `edits`: (path, text, other text) of
    the copy, for tests that must notice a broken module."""
    sources = _sources(folder)
    # The compiler is not among the facts: with another one the kernel would be another, too.
    kept = CACHE / "modules" / f"{kernel.release}_{_digest(sources, kernel.root.name, folder, *words, *map(str, edits))}"
    # What is there waits for no other's build.
    if not kept.exists():
        with locked(CACHE / f"modules-{kernel.release}.lock"):
            _make_kept(kernel, folder, sources, kept, words, edits)
    kept.touch()
    return next(kept.glob("*.ko"))


def _make_kept(kernel: Kernel, folder, sources: dict[str, pathlib.Path], kept: pathlib.Path, words, edits) -> None:
    if not kept.exists():
        kept.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE, prefix="building-") as work:
            _copied(sources, pathlib.Path(work))
            _edit(pathlib.Path(work), edits)
            said = _make(kernel, folder, pathlib.Path(work), "W=1", *words, "modules")
            warnings = [row for row in said.splitlines() if re.search("warning", row, re.I) and not NOT_OURS.search(row)]
            if warnings:
                raise BuildFailed(f"{folder} for {kernel.release}:\n" + "\n".join(warnings))
            built = sorted((pathlib.Path(work) / _name(folder)).glob("*.ko"))
            if len(built) != 1:
                raise BuildFailed(f"{folder} for {kernel.release}: {len(built)} modules where one was expected")
            new = kept.with_suffix(".new")
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir()
            shutil.copy(built[0], new)
            # What coverage.py needs, where the words ask for it.
            for notes in built[0].parent.glob("*.gcno"):
                shutil.copy(notes, new)
            new.rename(kept)
        kernels.keep_newest(kept.parent, "", KEPT)


def sparse(kernel: Kernel, folder: str | pathlib.Path = DRIVER) -> list[str]:
    """What sparse has to say of each source, and of the headers among them."""
    sources = _sources(folder)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="building-") as work:
        _copied(sources, pathlib.Path(work))
        said = _make(kernel, folder, pathlib.Path(work), "C=2", "modules")
        return [row.replace(f"{work}/", "") for row in said.splitlines()
                if re.search(r": (warning|error): ", row) and str(work) in row]


def checkpatch(folder: str | pathlib.Path = DRIVER) -> list[str]:
    """What the kernel's own checker of style has to say, its strictest."""
    scripts = _checkpatch_scripts()
    # It takes the macros of tracepoints for code.
    files = [str(file) for file in sorted((ROOT / folder).rglob("*"))
             if file.suffix in (".c", ".h") and file.name != "trace.h"]
    done = subprocess.run(["perl", str(scripts / "checkpatch.pl"), "--no-tree", "--strict", "--terse", "--show-types",
                           "--no-summary", "--file", *files], capture_output=True, text=True, cwd=ROOT)
    if not files or done.stderr:
        raise BuildFailed(f"checkpatch: {len(files)} files: {done.stderr}")
    return [row.replace(f"{ROOT}/", "") for row in done.stdout.splitlines() if row]


def _checkpatch_scripts() -> pathlib.Path:
    """Of the package of the kernel's source, a few files; they change little from version to version."""
    package = "linux-source-6.1"
    target = CACHE / "checkpatch"
    with locked(CACHE / "checkpatch.lock"):
        if not target.exists():
            with tempfile.TemporaryDirectory(dir=CACHE, prefix="fetching-") as work:
                suite = Suite()
                try:
                    try:
                        suite.unpack([package], pathlib.Path(work))
                    except NoPackage:
                        suite.update()
                        suite.unpack([package], pathlib.Path(work))
                    said("tar", "-xJf", str(next(pathlib.Path(work).glob("usr/src/*.tar.xz"))), "-C", work,
                         *(f"{package}/scripts/{name}" for name in
                           ("checkpatch.pl", "spelling.txt", "const_structs.checkpatch")))
                except NoPackage as error:
                    raise kernels.NoKernel(f"checkpatch.pl: {error}") from error
                (pathlib.Path(work) / package / "scripts").rename(target)
    return target
