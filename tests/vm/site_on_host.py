# SPDX-License-Identifier: Apache-2.0
"""A Herald of two sides: the process server on this host, guardian and replicator in a machine, which
reaches it over QEMU's network.

    with HostSite(folder) as site:
        site.into(initramfs)                       # programs and the machine's configuration
        with Machine("name", initramfs, disks, network=True) as machine:
            machine.boot()
            site.connect(machine)                  # guardian and replicator run
            site.cbtctl("protect /dev/mapper/data")
            site.restore(disk, "--latest", image)  # on the host

Promise: the server ends with `with`, or with this process. Listens on 127.0.0.1 only, on a port that was free.
"""
import json
import pathlib
import re
import socket
import subprocess
import time

from initramfs import Initramfs
from machine import BIN, HOST_ADDRESS, GuestFailed, Machine

IN_GUEST = ("herald-guardian", "herald-replicator", "cbtctl")
# Of a machine that is emulated, on a host that is busy.
SYNC_SECONDS = 900


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def edit(path: pathlib.Path, pattern: str, line: str) -> None:
    text, count = re.subn(pattern, line, path.read_text(), flags=re.MULTILINE)
    assert count == 1, f"{path}: {count} lines are {pattern}"
    path.write_text(text)


class HostSite:
    def __init__(self, folder: pathlib.Path, points_every_s=2):
        self.folder, self.machine, self.server = folder, None, None
        self.config = folder / "config"
        self.port = free_port()
        # The certificate is for both of the server's addresses.
        subprocess.run([BIN / "herald", "init", self.config, "--server-host", HOST_ADDRESS, "--server-host", "127.0.0.1",
                        "--port", str(self.port), "--machine", "guest", "--store", folder / "vault",
                        "--state-dir", folder / "state", "--points-every", str(points_every_s)],
                       check=True, stdout=subprocess.DEVNULL)
        edit(self.config / "operator/herald.toml", r"^host = .*", 'host = "127.0.0.1"')
        edit(self.config / "server/process-server.toml", r"^address = \S+", 'address = "127.0.0.1"')
        edit(self.config / "machine/replicator.toml", r"^state_dir = .*", 'state_dir = "/data/state"')

    # -- the host's side --
    def __enter__(self):
        with open(self.folder / "server.log", "ab") as log:
            self.server = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", BIN / "herald-process-server", "--config",
                 self.config / "server/process-server.toml"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        ends = time.monotonic() + 60
        while self.ask("status", "--json").returncode != 0:
            if time.monotonic() > ends or self.server.poll() is not None:
                raise GuestFailed(f"the process server does not answer: {(self.folder / 'server.log').read_text()}")
            time.sleep(0.2)
        return self

    def __exit__(self, kind, value, trace):
        self.server.terminate()
        try:
            self.server.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.server.kill()
            self.server.wait()
        return False

    def ask(self, *words, timeout=600.0) -> subprocess.CompletedProcess:
        """The operator's command, on the host."""
        return subprocess.run([BIN / "herald", *map(str, words), "--config", self.config / "operator/herald.toml"],
                              capture_output=True, text=True, timeout=timeout)

    def herald(self, *words) -> str:
        done = self.ask(*words)
        if done.returncode != 0:
            raise GuestFailed(f"herald {' '.join(map(str, words))}: status {done.returncode}: {done.stderr}")
        return done.stdout

    def restore(self, disk: str, which: tuple[str, ...], image: pathlib.Path) -> dict:
        return json.loads(self.herald("restore", disk, *which, "--to", image, "--json"))

    def restore_moment(self, disk: str, time_ns: int, image: pathlib.Path) -> dict:
        """That one itself: refused where it is not restorable."""
        seconds, fraction = divmod(time_ns, 1_000_000_000)
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{fraction:09d}Z"
        return self.restore(disk, ("--time", text, "--exact"), image)

    # -- the guest's side --
    def into(self, initramfs: Initramfs) -> Initramfs:
        for file in (self.config / "machine").iterdir():
            initramfs.content(f"etc/herald/{file.name}", file.read_bytes(), 0o600)
        return initramfs.modules("virtio_net").program(*(BIN / name for name in IN_GUEST))

    def connect(self, machine: Machine) -> None:
        self.machine = machine
        machine.connect_network()
        machine.run("mkdir -p /run/herald; herald-guardian --socket /run/herald/guardian.sock >>/data/guardian.log 2>&1 &")
        machine.wait("test -S /run/herald/guardian.sock")
        self.connect_replicator(machine)

    def connect_replicator(self, machine: Machine) -> None:
        machine.run("herald-replicator --config /etc/herald/replicator.toml >>/data/replicator.log 2>&1 & "
                    "echo $! >/run/replicator.pid")
        machine.wait("cbtctl --socket /run/herald/replicator.sock list --json")

    def cbtctl(self, words: str, timeout=300.0) -> str:
        return self.machine.run(f"cbtctl --socket /run/herald/replicator.sock {words}", timeout)

    def status(self, node: str) -> dict:
        return json.loads(self.cbtctl(f"status {node} --json"))

    def protect(self, node: str, meta="") -> str:
        """Its id, once it is in sync."""
        self.cbtctl(f"protect {node} {'--meta ' + meta if meta else ''} --tracker dm_cbt")
        self.wait_synced(node)
        said = self.status(node)
        if said["tracker"] != "dm_cbt":
            raise GuestFailed(f"{node} is not tracked by the driver: {said}")
        return said["disk"]

    def wait_synced(self, node: str) -> None:
        self.cbtctl(f"status {node} --wait-synced --timeout {SYNC_SECONDS}", SYNC_SECONDS + 60)

    def point_after(self, node: str, time_ns: int) -> dict:
        """The first point that is later: all before that moment is stored then."""
        ends = time.monotonic() + 300
        while True:
            status = self.status(node)
            point = status["last_point"]
            if point and point["time_ns"] > time_ns:
                if status["frozen_ms_total"] != 0:
                    raise GuestFailed(f"{node}: a point froze: {status}")
                return point
            if time.monotonic() > ends:
                raise GuestFailed(f"{node}: no point after {time_ns}: {status}")
            time.sleep(0.5)

    def logs(self) -> str:
        said = (self.folder / "server.log").read_text()[-3000:]
        return f"{said}\n{self.machine.attempt('tail -n 30 /data/*.log')[1] if self.machine else ''}"
