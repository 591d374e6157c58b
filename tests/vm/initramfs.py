# SPDX-License-Identifier: Apache-2.0
"""The file system a machine of tests/vm boots into: busybox, the programs a test names with their
libraries, kernel modules; written as a cpio archive ("newc", see the kernel's
Documentation/driver-api/early-userspace/buffer-format.rst).

Promise: nothing is in it that was not named, and its content does not depend on when it was made.
Programs are stripped, as a machine unpacks all of it into memory before it begins.
"""
import hashlib
import os
import pathlib
import re
import shutil
import stat
import subprocess

from kernels import Kernel, module_bytes
from packages import CACHE, locked

HERE = pathlib.Path(__file__).resolve().parent
# What Python's interpreter does not need to run a test's script.
PYTHON_LEFT_OUT = ("test", "idlelib", "lib2to3", "tkinter", "pydoc_data", "ensurepip", "turtledemo", "distutils",
                   "unittest", "__pycache__", "dist-packages", "site-packages", "config-3")


def libraries(program: pathlib.Path) -> list[pathlib.Path]:
    done = subprocess.run(["ldd", str(program)], capture_output=True, text=True)
    return [pathlib.Path(path) for path in re.findall(r"(/\S+) \(0x", done.stdout)]


def stripped(program: pathlib.Path) -> bytes:
    """Without its symbols; kept in the cache, as stripping a large program takes a second."""
    facts = program.stat()
    name = hashlib.sha256(f"{program.resolve()} {facts.st_size} {facts.st_mtime_ns}".encode()).hexdigest()[:32]
    kept = CACHE / "stripped" / name
    with locked(CACHE / "stripped.lock"):
        kept.parent.mkdir(exist_ok=True)
        if not kept.exists():
            for old in sorted(kept.parent.iterdir(), key=lambda path: path.stat().st_mtime)[:-200]:
                old.unlink()
            made = kept.with_suffix(".new")
            if subprocess.run(["strip", "-o", str(made), str(program)], capture_output=True).returncode != 0:
                shutil.copyfile(program, made)
            made.rename(kept)
    return kept.read_bytes()


class Initramfs:
    def __init__(self, kernel: Kernel):
        self.kernel = kernel
        self.entries: dict[str, tuple[int, bytes]] = {}  # path -> mode, content
        self.module_list: list[pathlib.Path] = []
        # Debian's layout: programs are looked for in /usr/bin under either name.
        for folder in ("usr/bin", "usr/lib", "usr/lib64", "dev", "proc", "sys", "run", "tmp", "root", "data", "mnt",
                       "etc", "var"):
            self.folder(folder)
        for name, to in (("bin", "usr/bin"), ("sbin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64"),
                         ("usr/sbin", "bin")):
            self.entries[name] = (stat.S_IFLNK | 0o777, to.encode())
        self.text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
        self.text("etc/hosts", "127.0.0.1 localhost\n")
        self.text("init", (HERE / "guest_init").read_text(), 0o755)
        self.program("busybox")

    def folder(self, path: str) -> None:
        parent = os.path.dirname(path)
        if parent and parent not in self.entries:
            self.folder(parent)
        self.entries.setdefault(path, (stat.S_IFDIR | 0o755, b""))

    def content(self, path: str, content: bytes, mode=0o644) -> None:
        """At its real place: /lib and the like are links."""
        first, _, rest = path.lstrip("/").partition("/")
        if rest and first in self.entries and stat.S_ISLNK(self.entries[first][0]):
            path = self.entries[first][1].decode() + "/" + rest
        path = path.lstrip("/").replace("usr/sbin/", "usr/bin/")
        self.folder(os.path.dirname(path) or "usr")
        self.entries[path] = (stat.S_IFREG | mode, content)

    def text(self, path: str, text: str, mode=0o644) -> None:
        self.content(path, text.encode(), mode)

    def file(self, host: pathlib.Path, path: str | None = None) -> None:
        self.content(path or str(host), host.read_bytes(), stat.S_IMODE(host.stat().st_mode))

    def program(self, *names) -> "Initramfs":
        """By name from PATH or by path: into /usr/bin, with the libraries it loads."""
        for name in names:
            found = shutil.which(str(name), path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
            if not found:
                raise FileNotFoundError(f"{name}: no such program on this host")
            host = pathlib.Path(found)
            self.content(f"usr/bin/{host.name}", stripped(host), 0o755)
            for library in libraries(host):
                self.content(str(library), stripped(library), 0o755)
        return self

    def python(self) -> "Initramfs":
        """Debian's interpreter and its standard library."""
        interpreter = pathlib.Path("/usr/bin/python3").resolve()
        self.program(interpreter)
        self.entries["usr/bin/python3"] = (stat.S_IFLNK | 0o777, interpreter.name.encode())
        library = pathlib.Path(f"/usr/lib/{interpreter.name}")
        for folder, folders, files in os.walk(library):
            folders[:] = [name for name in folders if not name.startswith(PYTHON_LEFT_OUT)]
            for name in files:
                host = pathlib.Path(folder) / name
                if host.suffix not in (".py", ".so") or host.is_symlink() and not host.exists():
                    continue
                self.content(str(host), host.read_bytes())
                for needed in libraries(host) if host.suffix == ".so" else ():
                    self.content(str(needed), stripped(needed), 0o755)
        return self

    def modules(self, *names, load=True) -> "Initramfs":
        """Loaded at boot in this order; with load=False only there, for `insmod /modules/NAME.ko`."""
        for file in self.kernel.modules(names):
            path = "modules/" + file.name.removesuffix(".xz")
            if path not in self.entries:
                self.content(path, module_bytes(file))
            if load and file not in self.module_list:
                self.module_list.append(file)
        return self

    def module(self, *files: pathlib.Path) -> "Initramfs":
        """Of our own making (module.py): only there, for `insmod /modules/NAME.ko`."""
        for file in files:
            self.content("modules/" + file.name, file.read_bytes())
        return self

    def write(self, path: pathlib.Path) -> pathlib.Path:
        names = [file.name.removesuffix(".xz") for file in self.module_list]
        self.text("modules/load", "".join(f"/modules/{name}\n" for name in names))
        with open(path, "wb") as out:
            # A directory before what is in it.
            for number, (name, (mode, content)) in enumerate(sorted(self.entries.items()), start=1):
                self._entry(out, number, name, mode, content)
            self._entry(out, 0, "TRAILER!!!", 0, b"")
        return path

    @staticmethod
    def _entry(out, number: int, name: str, mode: int, content: bytes) -> None:
        encoded = name.encode() + b"\0"
        links = 2 if stat.S_ISDIR(mode) else 1
        fields = (number, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
        out.write(header + b"\0" * (-len(header) % 4))
        out.write(content)
        out.write(b"\0" * (-len(content) % 4))
