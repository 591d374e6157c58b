# SPDX-License-Identifier: Apache-2.0
"""A small Herald inside one machine: guardian, process server and replicator over its loopback, with
everything they keep on the machine's data disk, so that it outlives a power cut as a disk does.

    site = Site(machine, "/dev/vda")
    site.create()                         # once: makes the data disk's file system and the site
    site.start()                          # after each boot, the data disk mounted first
    site.protect("/dev/sda")
    point = site.tag("/dev/sda", "one")   # sha256sum hashes the source, past its cache, while frozen
    site.check(point)
"""
import dataclasses
import json

from initramfs import Initramfs
from machine import BIN, GuestFailed, Machine

PROGRAMS = ("herald", "herald-guardian", "herald-process-server", "herald-replicator", "cbtctl", "hrl")


def with_site(initramfs: Initramfs) -> Initramfs:
    """What a machine needs for one."""
    return initramfs.program(*(BIN / name for name in PROGRAMS), "mkfs.ext4", "e2fsck", "sha256sum", "dd", "sfdisk")


@dataclasses.dataclass
class Point:
    node: str
    disk: str
    id: str
    name: str
    sha256: str


class Site:
    def __init__(self, machine: Machine, data: str):
        self.machine, self.data = machine, data

    def create(self) -> None:
        self.machine.run(f"mkfs.ext4 -q {self.data} && mount {self.data} /data && mkdir /data/images && "
                         "herald init /data/config --server-host 127.0.0.1 --port 9443 --machine guest "
                         "--store /data/vault/store --run-dir /run/herald --state-dir /data/state && "
                         # Points are taken by the test alone.
                         "sed -i 's/^every_s = .*/every_s = 0/' /data/config/machine/replicator.toml")

    def start(self) -> None:
        """Each daemon's log goes on in /data."""
        self.machine.run(f"""
            mkdir -p /run/herald; grep -q ' /data ' /proc/mounts || mount {self.data} /data
            herald-guardian --socket /run/herald/guardian.sock >>/data/guardian.log 2>&1 &
            herald-process-server --config /data/config/server/process-server.toml >>/data/server.log 2>&1 &""")
        self.machine.wait("test -S /run/herald/guardian.sock && herald "
                          "--config /data/config/operator/herald.toml status --json")
        self.start_replicator()

    def start_replicator(self) -> None:
        self.machine.run("herald-replicator --config /data/config/machine/replicator.toml "
                         ">>/data/replicator.log 2>&1 & echo $! >/run/replicator.pid")
        self.machine.wait("cbtctl --socket /run/herald/replicator.sock list --json")

    def cbtctl(self, words: str, timeout=180.0) -> str:
        return self.machine.run(f"cbtctl --socket /run/herald/replicator.sock {words}", timeout)

    def herald(self, words: str, timeout=300.0) -> str:
        # Ended inside, so that the machine still answers when it is asked why.
        return self.machine.run(f"timeout {timeout:.0f} herald --config /data/config/operator/herald.toml {words}",
                                timeout + 60)

    def protect(self, node: str) -> None:
        self.cbtctl(f"protect {node}")
        self.wait_synced(node)

    def wait_synced(self, node: str) -> None:
        self.cbtctl(f"status {node} --wait-synced --timeout 170")

    def status(self, node: str) -> dict:
        return json.loads(self.cbtctl(f"status {node} --json"))

    def said(self, words: str) -> bool:
        """Whether the replicator's log has these words."""
        return self.machine.attempt(f"grep -q '{words}' /data/replicator.log")[0] == 0

    def tag(self, node: str, name: str) -> Point:
        hashing = f"dd if={node} iflag=direct bs=1M status=none | sha256sum >/run/hash"
        self.machine.wait(f"cbtctl --socket /run/herald/replicator.sock tag {node} --name {name} --json "
                          f"--while-frozen '{hashing}' >/run/tag", seconds=90)
        said = json.loads(self.machine.run("cat /run/tag"))
        return Point(node, self.status(node)["disk"], said["point"]["id"], name,
                     self.machine.run("cut -d' ' -f1 /run/hash"))

    def restored_sha256(self, point: Point) -> str:
        image = f"/data/images/{point.name}.img"
        self.herald(f"restore {point.disk} --point {point.id} --to {image}")
        return self.machine.run(f"sha256sum {image} | cut -d' ' -f1; rm {image}")

    def check(self, point: Point) -> None:
        got = self.restored_sha256(point)
        if got != point.sha256:
            raise GuestFailed(f"point {point.name} of {point.node}: restored {got}, the source was {point.sha256}")

    def logs(self) -> str:
        return self.machine.attempt("tail -n 30 /data/*.log")[1]
