# SPDX-License-Identifier: Apache-2.0
"""Debian packages for the machines of tests/vm: looked up, downloaded and unpacked, never installed.

Promise: no package runs a script, and the host's own package state is read, never changed, but for an
`apt-get update` where its lists are of no use. Suites that are not the host's have lists of their own
in the cache, fetched from the mirrors that the host itself is configured for.
Failure: NoPackage, with what apt said.
"""
import contextlib
import fcntl
import os
import pathlib
import re
import subprocess
import tempfile
import time

CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "herald" / "vm"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# Kernels come out every few days; more often would only load the mirror.
LISTS_SECONDS_MAX = 12 * 3600


class NoPackage(Exception):
    pass


def said(*command, cwd=None) -> str:
    # What apt says is looked through, so it has to be in English.
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env={**os.environ, "LC_ALL": "C"})
    if done.returncode != 0:
        raise NoPackage(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


@contextlib.contextmanager
def locked(path: pathlib.Path):
    """One process at a time: tests run side by side and share the cache."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def mirror(suite: str) -> str:
    """Where the host gets the suite's like from: security updates are served elsewhere than the rest."""
    security = suite.endswith("-security")
    rows = said("apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI)", "Created-By: Packages", "Origin: Debian")
    for codename, uri in sorted({tuple(row.split()[:2]) for row in rows.splitlines() if len(row.split()) == 2}):
        if codename.endswith("-security") == security:
            return uri
    raise NoPackage(f"the host's apt knows no Debian mirror that would have {suite}")


class Suite:
    """Of the package lists named: the host's own, without a name."""

    def __init__(self, name=""):
        self.name = name
        self.options: list[str] = []
        if name:
            self.state = CACHE / "apt" / name
            self.options = [word for setting in (
                f"Dir::Etc::sourcelist={self.state}/sources.list", f"Dir::Etc::sourceparts={self.state}/none",
                f"Dir::Etc::preferencesparts={self.state}/none", f"Dir::State={self.state}",
                f"Dir::State::status={self.state}/status", f"Dir::Cache={self.state}/cache",
                # As another user it could not write to the cache in root's home.
                "APT::Sandbox::User=root") for word in ("-o", setting)]

    def __str__(self):
        return self.name or "the host's package lists"

    def update(self) -> None:
        if self.name:
            for folder in ("none", "lists/partial", "cache/archives/partial"):
                (self.state / folder).mkdir(parents=True, exist_ok=True)
            (self.state / "status").touch()
            (self.state / "sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror(self.name)} {self.name} main\n")
        # Lists that could not be fetched are a warning to apt; a kernel they lack is missed anyhow.
        said("apt-get", *self.options, "update", "-qq", "-o", "APT::Update::Error-Mode=any" if self.name else "Acquire::Retries=1")
        if self.name:
            (self.state / "updated").touch()

    def refresh(self) -> None:
        """The host's lists are the host's business; others are fetched when they are old."""
        if self.name:
            updated = self.state / "updated"
            if not updated.exists() or time.time() - updated.stat().st_mtime > LISTS_SECONDS_MAX:
                self.update()

    def depends(self, package: str) -> list[str]:
        """Names it depends on; of alternatives, all."""
        rows = said("apt-cache", *self.options, "depends", "--no-recommends", package)
        return re.findall(r"(?:Pre)?Depends: (\S+)", rows)

    def version(self, package: str) -> str:
        found = re.search(r"Candidate: (\S+)", said("apt-cache", *self.options, "policy", package))
        if not found or found[1] == "(none)":
            raise NoPackage(f"{self} has no {package}")
        return found[1]

    def unpack(self, packages: list[str], root: pathlib.Path) -> None:
        """Names, or NAME=VERSION, on top of each other below `root`."""
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root.parent, prefix="fetching-") as work:
            said("apt-get", *self.options, "download", "-qq", *packages, cwd=work)
            for file in sorted(pathlib.Path(work).glob("*.deb")):
                said("dpkg-deb", "-x", str(file), str(root))
