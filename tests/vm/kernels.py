# SPDX-License-Identifier: Apache-2.0
"""Debian's kernels for the machines of tests/vm: found, downloaded, unpacked and cached.

Promise: `find("6.1")` is the newest kernel of that line that the package lists offer, or the newest
that is cached when they offer none; `headers(kernel)` is what a module for it is built with; nothing
is installed, and no package runs a script.
Owns: kernels/ and headers/ in the cache (one directory per package version; the two newest of a line
are kept).
Failure: NoKernel, with what apt-get said.
"""
import lzma
import os
import pathlib
import re
import shutil
import tempfile

from packages import CACHE, NoPackage, Suite, locked, said

# Line -> suite and the package that depends on the line's newest kernel. The cloud flavour has what
# virtual machines have, and boots in a third of the time. "7" is the newest that Debian packages for
# a released system, whatever its number.
LINES = {"5.10": ("bullseye-security", "linux-image-cloud-amd64"),
         "6.1": ("", "linux-image-cloud-amd64"),
         "6.12": ("", "linux-image-6.12-cloud-amd64"),
         "7": ("trixie-backports", "linux-image-cloud-amd64")}
KEPT_OF_A_LINE = 2


class NoKernel(Exception):
    pass


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
            try:
                rows = said("modprobe", "-S", self.release, "-d", str(self.root), "--show-depends", name)
            except NoPackage as error:
                raise NoKernel(f"{self.release} has no module {name}: {error}") from error
            for row in rows.splitlines():
                words = row.split()
                if words[0] == "insmod" and pathlib.Path(words[1]) not in files:
                    files.append(pathlib.Path(words[1]))
        return files


def module_bytes(file: pathlib.Path) -> bytes:
    """As insmod wants it: busybox's does not unpack."""
    content = file.read_bytes()
    return lzma.decompress(content) if file.suffix == ".xz" else content


def keep_newest(folder: pathlib.Path, prefix: str, count=KEPT_OF_A_LINE) -> None:
    for old in sorted(folder.glob(prefix + "*"), key=lambda path: path.stat().st_mtime)[:-count]:
        shutil.rmtree(old)


def _newest(suite: Suite, meta: str) -> tuple[str, str]:
    """Name and version of the kernel that `meta` stands for."""
    # Signed ones first: -unsigned and -dbg are other packages of the same prefix.
    named = [name for name in suite.depends(meta) if re.match(r"linux-image-\d", name)]
    if not named:
        raise NoPackage(f"{suite} has no {meta}")
    return named[0], suite.version(named[0])


def _boot_folder(root: pathlib.Path) -> None:
    """From 7.2 the image and its configuration lie beside the modules."""
    for image in root.glob("usr/lib/modules/*/vmlinuz"):
        (root / "boot").mkdir(exist_ok=True)
        for name in ("vmlinuz", "config"):
            place = root / f"boot/{name}-{image.parent.name}"
            if not place.exists():
                place.symlink_to(f"../usr/lib/modules/{image.parent.name}/{name}")


def _fetch(suite: Suite, package: str, version: str, target: pathlib.Path) -> None:
    # From 7.2 these are packages of their own.
    parts = [name for name in suite.depends(package) if re.match(r"linux-(binary|modules|base)-\d", name)]
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="fetching-") as work:
        root = pathlib.Path(work) / "root"
        suite.unpack([f"{package}={version}", *parts], root)
        if not (root / "lib").exists():
            (root / "lib").symlink_to("usr/lib")
        elif (root / "usr/lib/modules").exists() and not (root / "lib/modules").exists():
            (root / "lib/modules").symlink_to("../usr/lib/modules")
        _boot_folder(root)
        release = next(root.glob("boot/vmlinuz-*")).name.removeprefix("vmlinuz-")
        said("depmod", "-b", str(root), release)
        root.rename(target)
    target.touch()


def find(line: str) -> Kernel:
    suite, meta = Suite(LINES[line][0]), LINES[line][1]
    kernels = CACHE / "kernels"
    with locked(CACHE / "kernels.lock"):
        kernels.mkdir(exist_ok=True)
        prefix = line + "_"
        cached = sorted(kernels.glob(prefix + "*"), key=lambda path: path.stat().st_mtime)
        for attempt in ("with the lists as they are", "with new ones"):
            try:
                if attempt == "with new ones":
                    # Never fetched, or so old that what they name is gone from the mirror.
                    suite.update()
                suite.refresh()
                package, version = _newest(suite, meta)
                target = kernels / (prefix + version.replace("~", "-"))
                if not target.exists():
                    _fetch(suite, package, version, target)
                    keep_newest(kernels, prefix)
                return Kernel(line, target)
            except NoPackage as error:
                failure = error
        if not cached:
            raise NoKernel(f"kernel {line}: {failure}") from failure
        return Kernel(line, cached[-1])


def headers(kernel: Kernel) -> pathlib.Path:
    """The folder that `make -C` wants to build a module for the kernel."""
    target = CACHE / "headers" / kernel.root.name
    build = target / f"usr/src/linux-headers-{kernel.release}"
    if (kernel.root / "build").exists():
        return kernel.root / "build"  # of our own making: debug_kernel.py
    with locked(CACHE / "headers.lock"):
        target.parent.mkdir(exist_ok=True)
        if target.exists():
            return build
        suite = Suite(LINES[kernel.line][0])
        name = f"linux-headers-{kernel.release}"
        try:
            parts = [part for part in suite.depends(name) if re.match(r"linux-(headers|kbuild)-\d", part)]
            with tempfile.TemporaryDirectory(dir=target.parent, prefix="fetching-") as work:
                root = pathlib.Path(work) / "root"
                suite.unpack([name, *parts], root)
                _relocate(root, target, kernel.release)
                root.rename(target)
        except NoPackage as error:
            raise NoKernel(f"headers of {kernel.release}: {error}") from error
        keep_newest(target.parent, kernel.line + "_")
        return build


def root_of(headers_folder: pathlib.Path) -> pathlib.Path:
    """The folder that holds all that the headers refer to."""
    return headers_folder.parent if headers_folder.name == "build" else headers_folder.parents[2]


def _relocate(root: pathlib.Path, target: pathlib.Path, release: str) -> None:
    """Debian's headers name their other half by its installed place."""
    makefile = root / f"usr/src/linux-headers-{release}/Makefile"
    makefile.write_text(re.sub(r"(=|include )/usr/src/", rf"\g<1>{target}/usr/src/", makefile.read_text()))
    for link in root.glob("usr/src/*/*"):
        if link.is_symlink() and os.readlink(link).startswith("/"):
            place = f"{target}{os.readlink(link)}"
            link.unlink()
            link.symlink_to(place)
