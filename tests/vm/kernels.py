# SPDX-License-Identifier: Apache-2.0
"""Debian's kernels for the machines of tests/vm: found, downloaded, unpacked and cached.

Promise: `find("6.1")` is the newest kernel of that line that the host's package lists offer, or the
newest that is cached when they offer none; nothing is installed, and no package runs a script.
Owns: kernels/ in the cache (one directory per package version; the two newest of a line are kept).
Failure: NoKernel, with what apt-get said.
"""
import contextlib
import fcntl
import lzma
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "herald" / "vm"

# Line -> the package that depends on its newest kernel. The cloud flavour has what virtual machines
# have, and boots in a third of the time.
LINES = {"6.1": "linux-image-cloud-amd64", "6.12": "linux-image-6.12-cloud-amd64"}


class NoKernel(Exception):
    pass


def _said(*command, cwd=None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    if done.returncode != 0:
        raise NoKernel(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


@contextlib.contextmanager
def locked(path: pathlib.Path):
    """One process at a time: tests run side by side and share the cache."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Kernel:
    def __init__(self, line: str, root: pathlib.Path):
        self.line = line
        self.root = root
        self.image = next(root.glob("boot/vmlinuz-*"))
        self.release = self.image.name.removeprefix("vmlinuz-")

    def has_option(self, name: str) -> bool:
        config = (self.root / f"boot/config-{self.release}").read_text()
        return re.search(rf"^CONFIG_{name}=[ym]$", config, re.MULTILINE) is not None

    def modules(self, names) -> list[pathlib.Path]:
        """Files of these modules and of all they need, in the order in which they load. What is built
        in needs none; a name that the kernel does not know is an error."""
        files: list[pathlib.Path] = []
        for name in names:
            for row in _said("modprobe", "-S", self.release, "-d", str(self.root), "--show-depends", name).splitlines():
                words = row.split()
                if words[0] == "insmod" and pathlib.Path(words[1]) not in files:
                    files.append(pathlib.Path(words[1]))
        return files


def module_bytes(file: pathlib.Path) -> bytes:
    """As insmod wants it: busybox's does not unpack."""
    content = file.read_bytes()
    return lzma.decompress(content) if file.suffix == ".xz" else content


def _newest_package(meta: str) -> tuple[str, str]:
    """Name and version of the kernel that `meta` stands for."""
    # Signed ones first: -unsigned and -dbg are other packages of the same prefix.
    named = re.findall(r"Depends: (linux-image-\S+)", _said("apt-cache", "depends", "--no-recommends", meta))
    if not named:
        raise NoKernel(f"the package lists have no {meta}")
    version = re.search(r"Candidate: (\S+)", _said("apt-cache", "policy", named[0]))
    if not version or version[1] == "(none)":
        raise NoKernel(f"the package lists have no {named[0]}")
    return named[0], version[1]


def _fetch(package: str, version: str, target: pathlib.Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="fetching-") as work:
        # As root, apt-get downloads as another user, who cannot write here: it says so and goes on.
        _said("apt-get", "download", f"{package}={version}", cwd=work)
        root = pathlib.Path(work) / "root"
        _said("dpkg-deb", "-x", str(next(pathlib.Path(work).glob("*.deb"))), str(root))
        if not (root / "lib").exists():
            (root / "lib").symlink_to("usr/lib")
        release = next(root.glob("boot/vmlinuz-*")).name.removeprefix("vmlinuz-")
        _said("depmod", "-b", str(root), release)
        root.rename(target)


def find(line: str) -> Kernel:
    kernels = CACHE / "kernels"
    with locked(CACHE / "kernels.lock"):
        kernels.mkdir(exist_ok=True)
        prefix = line + "_"
        cached = sorted(kernels.glob(prefix + "*"), key=lambda path: path.stat().st_mtime)
        try:
            try:
                package, version = _newest_package(LINES[line])
            except NoKernel:
                # A machine whose lists were never fetched, or are too old to be of use.
                _said("apt-get", "update")
                package, version = _newest_package(LINES[line])
            target = kernels / (prefix + version.replace("~", "-"))
            if not target.exists():
                _fetch(package, version, target)
                target.touch()
                for old in cached[:-1]:
                    shutil.rmtree(old)
            return Kernel(line, target)
        except NoKernel:
            if not cached:
                raise
            return Kernel(line, cached[-1])
