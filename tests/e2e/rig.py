# SPDX-License-Identifier: Apache-2.0
"""A whole small Herald on this host, for end-to-end tests and benchmarks.

    with Rig(size_mib=256) as rig:
        rig.start()                       # guardian, server, replicator
        rig.protect()
        point = rig.tag("one")            # the source is hashed by sha256sum while frozen
        assert rig.restored_sha256(point) == point.sha256

Needs root. Everything lives in one temporary directory and one loop device; close() removes both.
Environment: HERALD_BIN_DIR (the programs), HERALD_SEED, HERALD_TIER (check, ci or nightly).
"""
import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("HERALD_BIN_DIR", ROOT / "build/dev/bin"))
TIER = os.environ.get("HERALD_TIER") or "check"
BLOCK_BYTES = 65536
SKIPPED = 77
LOOP_CTL_ADD, LOOP_CTL_REMOVE = 0x4C80, 0x4C81


def scaled(check: int, ci: int, nightly: int) -> int:
    """A count by tier."""
    return {"check": check, "ci": ci, "nightly": nightly}[TIER]


def seeded() -> random.Random:
    seed = int(os.environ.get("HERALD_SEED") or int.from_bytes(os.urandom(4), "little"))
    print(f"seed {seed} (repeat with HERALD_SEED={seed})", flush=True)
    return random.Random(seed)


def skip_unless_possible() -> None:
    """Ends the test, loudly, where the host cannot run it."""
    why = None
    if os.geteuid() != 0:
        why = "not root: loop devices, BPF programs and freezes need it"
    elif not os.path.exists("/sys/kernel/btf/vmlinux"):
        why = "this kernel has no BTF (/sys/kernel/btf/vmlinux)"
    if why:
        print(f"SKIPPED: {why}")
        sys.exit(SKIPPED)


def run(*args, timeout=120, check=True, env=None) -> subprocess.CompletedProcess:
    done = subprocess.run([str(a) for a in args], capture_output=True, text=True, timeout=timeout,
                          env={**os.environ, **(env or {})})
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, args))}: status {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def sha256_of(path) -> str:
    return run("sha256sum", path, timeout=600).stdout.split()[0]


def wait_until(condition, seconds: float, what: str, poll: float = 0.05):
    ends = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > ends:
            raise TimeoutError(f"after {seconds} s still not: {what}")
        time.sleep(poll)


@contextlib.contextmanager
def own_loop():
    """A loop device whose name stays the test's own while nothing is attached to it: `losetup --find` takes the
    lowest free one, this one has a high number, and there are free ones below. Removed at the end."""
    with open("/dev/loop-control", "rb") as control:
        for number in range(64):
            with contextlib.suppress(FileExistsError):
                fcntl.ioctl(control, LOOP_CTL_ADD, number)
        number = fcntl.ioctl(control, LOOP_CTL_ADD, 1000 + os.getpid() % 100000)
        try:
            yield f"/dev/loop{number}"
        finally:
            wait_until(lambda: _removed(control, number), 10, f"/dev/loop{number} is free")


def _removed(control, number: int) -> bool:
    try:
        fcntl.ioctl(control, LOOP_CTL_REMOVE, number)
        return True
    except OSError:
        return False


@dataclasses.dataclass
class Point:
    id: str
    name: str
    sha256: str
    frozen_ms: float
    raw: dict


class Rig:
    def __init__(self, size_mib=256, filesystem="ext4", mounted=True, store_tmpfs_mib=0, config="",
                 server_config="", partitions=0, loop=None, mount_options="defaults"):
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="herald-e2e-"))
        self.run_dir = self.work / "run"
        self.images = self.work / "images"
        self.logs = self.work / "log"
        self.mounts: list[pathlib.Path] = []
        for path in (self.run_dir, self.images, self.logs):
            path.mkdir()
        self.source = self.work / "source.img"
        self.loop = loop
        self.mount_options = mount_options
        self.processes: dict[str, subprocess.Popen] = {}
        self.failed = False
        self.partitions = partitions
        try:
            self._make(size_mib, filesystem, mounted, store_tmpfs_mib, config, server_config, partitions)
        except BaseException:
            self.failed = True
            self.close()
            raise

    def _make(self, size_mib, filesystem, mounted, store_tmpfs_mib, config, server_config, partitions):
        with open(self.source, "wb") as file:
            file.truncate(size_mib << 20)
        if partitions:
            lines = "label: gpt\n" + "".join(f"size={size_mib // (partitions + 1)}MiB\n" for _ in range(partitions))
            subprocess.run(["sfdisk", "-q", str(self.source)], input=lines, text=True, check=True)
        self.attach()
        if partitions:
            # Not every kernel reads partition tables of loop devices: each partition is told to it.
            table = json.loads(run("sfdisk", "--json", self.source).stdout)["partitiontable"]
            for number, entry in enumerate(table["partitions"]):
                if not os.path.exists(f"{self.loop}p{number + 1}"):
                    run("addpart", self.loop, number + 1, entry["start"], entry["size"])
        if mounted:
            devices = [f"{self.loop}p{i + 1}" for i in range(partitions)] or [self.loop]
            for number, device in enumerate(devices):
                wait_until(lambda d=device: os.path.exists(d), 10, f"{device} is there")
                mount = self.work / f"mnt{number}"
                mount.mkdir()
                force = [] if filesystem == "ext4" else ["-f"]
                run(f"mkfs.{filesystem}", "-q", *force, device)
                run("mount", "-o", self.mount_options, device, mount)
                self.mounts.append(mount)
        port = self._free_port()
        run(BIN / "herald", "init", self.work / "config", "--server-host", "127.0.0.1", "--port", port,
            "--machine", "rig", "--store", self.work / "vault/store", "--run-dir", self.run_dir,
            "--state-dir", self.work / "state")
        self.port = port
        if store_tmpfs_mib:
            (self.work / "vault").mkdir(exist_ok=True)
            run("mount", "-t", "tmpfs", "-o", f"size={store_tmpfs_mib}m", "tmpfs", self.work / "vault")
        self.replicator_toml = self.work / "config/machine/replicator.toml"
        self.server_toml = self.work / "config/server/process-server.toml"
        for path, text in ((self.replicator_toml, config), (self.server_toml, server_config)):
            if text:
                path.write_text(path.read_text() + "\n" + text + "\n")

    @staticmethod
    def _free_port() -> int:
        import socket
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            return s.getsockname()[1]

    @property
    def mount(self) -> pathlib.Path:
        return self.mounts[0]

    # -- the disk --
    def attach(self):
        if self.loop:
            run("losetup", self.loop, self.source)
        else:
            self.loop = run("losetup", "--find", "--show", self.source).stdout.strip()

    def unmount(self):
        for mount in self.mounts:
            if os.path.ismount(mount):
                run("umount", mount)

    def detach(self):
        run("losetup", "-d", self.loop)

    # -- the daemons --
    def _spawn(self, name, *args, env=None):
        log = open(self.logs / f"{name}.log", "ab")
        self.processes[name] = subprocess.Popen([str(a) for a in args], stdout=log, stderr=log,
                                                env={**os.environ, **(env or {})})
        log.close()

    def start(self):
        self.start_guardian()
        self.start_server()
        self.start_replicator()

    def start_guardian(self):
        self._spawn("guardian", BIN / "herald-guardian", "--socket", self.run_dir / "guardian.sock")
        wait_until(lambda: (self.run_dir / "guardian.sock").exists(), 10, "the guardian's socket is there")

    def start_server(self, env=None):
        self._spawn("server", BIN / "herald-process-server", "--config", self.server_toml, env=env)
        wait_until(lambda: not self.alive("server") or
                   self.herald("status", "--json", check=False).returncode == 0, 20, "the server answers")
        if not self.alive("server"):
            raise RuntimeError("the server ended at start:\n" + self.log("server"))

    def start_replicator(self, env=None, wait=True):
        self._spawn("replicator", BIN / "herald-replicator", "--config", self.replicator_toml, env=env)
        if wait:
            wait_until(lambda: not self.alive("replicator") or
                       self.cbtctl("list", "--json", check=False).returncode == 0, 20, "the replicator answers")
            if not self.alive("replicator"):
                raise RuntimeError("the replicator ended at start:\n" + self.log("replicator"))

    def alive(self, name) -> bool:
        return name in self.processes and self.processes[name].poll() is None

    def kill(self, name, how=signal.SIGKILL):
        process = self.processes.pop(name)
        if process.poll() is None:
            process.send_signal(how)
        return process.wait(timeout=60)

    def wait_dead(self, name, seconds=60) -> int:
        status = self.processes[name].wait(timeout=seconds)
        del self.processes[name]
        return status

    def log(self, name) -> str:
        path = self.logs / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    # -- the tools --
    def cbtctl(self, *args, check=True, timeout=120):
        return run(BIN / "cbtctl", "--socket", self.run_dir / "replicator.sock", *args, check=check, timeout=timeout)

    def herald(self, *args, check=True, timeout=600):
        return run(BIN / "herald", "--config", self.work / "config/operator/herald.toml", *args,
                   check=check, timeout=timeout)

    def protect(self, wait=True, timeout=120):
        self.cbtctl("protect", self.loop)
        if wait:
            self.wait_synced(timeout)

    def wait_synced(self, timeout=120):
        self.cbtctl("status", self.loop, "--wait-synced", "--timeout", timeout, timeout=timeout + 30)

    def status(self) -> dict:
        return json.loads(self.cbtctl("status", self.loop, "--json").stdout)

    def tag(self, name, check=True, tries_s=30) -> Point:
        """Takes a point, hashing the whole source with an independent program while it is frozen."""
        out = self.work / f"hash-{name}"
        command = f"dd if={self.loop} iflag=direct bs=4M status=none | sha256sum | cut -d' ' -f1 >{out}"
        ends = time.monotonic() + tries_s
        while True:
            done = self.cbtctl("tag", self.loop, "--name", name, "--json", "--while-frozen", command, check=False)
            if done.returncode == 0 or not check or time.monotonic() > ends:
                break
            time.sleep(0.5)
        if done.returncode != 0:
            raise RuntimeError(f"tag {name}: {done.stdout}{done.stderr}")
        raw = json.loads(done.stdout)["point"]
        return Point(raw["id"], name, out.read_text().strip(), raw["frozen_ms"], raw)

    def disk(self) -> str:
        return json.loads(self.herald("disks", "--json").stdout)["disks"][0]["disk"]

    def points(self) -> list:
        return json.loads(self.herald("points", self.disk(), "--json").stdout)["points"]

    def restore(self, point_id, name="restored.img") -> pathlib.Path:
        image = self.images / name
        if image.exists():
            image.unlink()
        self.herald("restore", self.disk(), "--point", point_id, "--to", image)
        return image

    def restored_sha256(self, point: Point) -> str:
        image = self.restore(point.id)
        try:
            return sha256_of(image)
        finally:
            image.unlink()

    def check_point(self, point: Point):
        got = self.restored_sha256(point)
        if got != point.sha256:
            self.failed = True
            raise AssertionError(f"point {point.name}: restored {got}, the source was {point.sha256}")

    # -- the end --
    def close(self):
        for name in ("replicator", "guardian", "server"):
            if name in self.processes:
                try:
                    self.kill(name, signal.SIGTERM)
                except subprocess.TimeoutExpired:
                    self.kill_hard_leftover(name)
        if self.failed:
            for name in ("replicator", "guardian", "server"):
                print(f"--- the end of {name}.log:\n" + "\n".join(self.log(name).splitlines()[-30:]))
        self.unmount()
        if self.loop:
            for number in range(self.partitions):
                run("delpart", self.loop, number + 1, check=False)
            run("losetup", "-d", self.loop, check=False)
        for path in (self.run_dir / "bpf", self.work / "vault"):
            if os.path.ismount(path):
                run("umount", path, check=False)
        shutil.rmtree(self.work, ignore_errors=True)

    def kill_hard_leftover(self, name):
        self.processes[name].kill()
        self.processes[name].wait()

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind:
            self.failed = True
        self.close()
        return False


class Writer:
    """Writes and overwrites files below a directory in a thread-like child process until stopped."""

    def __init__(self, mount: pathlib.Path, log: pathlib.Path, seed: int):
        with open(log, "ab") as out:
            self.process = subprocess.Popen([str(ROOT / "tests/e2e/workload.py"), "run", str(mount),
                                             "--seed", str(seed)], stdout=out, stderr=out)

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=60)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


