# SPDX-License-Identifier: Apache-2.0
"""Small hosts made of namespaces, with a wire between them, for tests that need more than one machine.

    with Hosts({"backup": "192.0.2.10", "web1": "192.0.2.20"}) as hosts:
        hosts["backup"].run("systemctl start herald-process-server")
        hosts.wire.loss, hosts.wire.delay_s = 0.02, 0.03
        hosts.cut("web1")

A host has its own processes, mounts, network, name and systemd as PID 1; its root is this machine's in
an overlay, so that everything installed here is there and nothing it changes stays. It shares the
kernel, the clock and the block devices. A host without systemd has no processes of its own, so that it can
stand for a person's machine: its ssh and scp reach the other hosts.
Needs root, and a cgroup v2 tree. close() ends everything it made.
"""
import ctypes
import fcntl
import heapq
import os
import pathlib
import random
import select
import shlex
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

from rig import BIN, ROOT, SKIPPED, skip_unless_possible, wait_until

SYSTEMD = "/lib/systemd/systemd"
CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TUN_NO_PI = 0x1001
# What would reach past the namespaces (kernel settings, modules, devices) or only costs time.
MASKED = """systemd-sysctl.service systemd-modules-load.service systemd-udevd.service systemd-udev-trigger.service
    systemd-udevd-control.socket systemd-udevd-kernel.socket systemd-binfmt.service systemd-random-seed.service
    systemd-logind.service systemd-remount-fs.service systemd-pstore.service systemd-update-utmp.service
    systemd-tmpfiles-setup-dev.service systemd-journald-dev-log.socket kmod-static-nodes.service
    dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount console-getty.service
    nftables.service ssh.service""".split()

PREPARE = r"""
set -eu
mount --make-rprivate /
mount -t tmpfs -o size=3g,mode=755 host "$WORK"
mkdir "$WORK/upper" "$WORK/work" "$WORK/root"
mount -t overlay -o "lowerdir=/,upperdir=$WORK/upper,workdir=$WORK/work" host "$WORK/root"
cd "$WORK/root"
mount --rbind /dev dev
mount -t tmpfs -o mode=755 run run
mount -t tmpfs -o mode=1777 tmp tmp
mount -t tmpfs -o mode=700 home root
for path in $KEPT; do mkdir -p "./$path" && mount --bind "$path" "./$path"; done
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs sys
rm -rf etc/systemd/system etc/herald var/lib/herald var/log/journal
mkdir -p etc/systemd/system usr/local/bin mnt
for unit in $MASKED; do ln -s /dev/null "etc/systemd/system/$unit"; done
hostname "$NAME"
echo "$NAME" >etc/hostname
printf '%s' "$HOSTS" >etc/hosts
: >etc/fstab
if ! command -v sudo >/dev/null; then printf '#!/bin/sh\nexec "$@"\n' >usr/local/bin/sudo && chmod 755 usr/local/bin/sudo; fi
if [ -n "$BOOT" ]; then
    mount -t proc proc proc
    mount -t cgroup2 -o nosuid,nodev,noexec cgroup sys/fs/cgroup
else
    mount --rbind /proc proc
fi
pivot_root . mnt
if [ -n "$BOOT" ]; then set -- /lib/systemd/systemd --unit=multi-user.target --log-target=null --show-status=no
else set -- sleep infinity; fi
exec chroot . /bin/sh -c 'umount -l /mnt && exec env -i container=herald PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"' start "$@"
"""

# A person's ssh and scp, as far as the documentation uses them.
SSH = r"""#!/bin/bash
pid_of() { case ${1#root@} in @PIDS@ *) echo "ssh: no host $1" >&2; exit 255 ;; esac; }
if [ "${0##*/}" = ssh ]; then
    pid=$(pid_of "$1"); shift
    exec nsenter -t "$pid" -m -u -i -n -p -C -- /bin/sh -c "$*"
fi
[ "$1" != -p ] || shift
target=${!#}
pid=$(pid_of "${target%%:*}")
exec cp -p "${@:1:$#-1}" "/proc/$pid/root${target#*:}"
"""


def cgroup_v2() -> pathlib.Path | None:
    """The cgroup v2 directory of this process, under which a host may have its own."""
    mounts = [line.split() for line in open("/proc/self/mountinfo")]
    top = next((m[4] for m in mounts if m[m.index("-") + 1] == "cgroup2"), None)
    if top is None:
        return None
    own = next(line[3:].strip() for line in open("/proc/self/cgroup") if line.startswith("0::"))
    return pathlib.Path(top + own)


def skip_without_hosts() -> None:
    skip_unless_possible()
    why = None
    if not os.path.exists(SYSTEMD):
        why = f"there is no systemd here ({SYSTEMD})"
    elif cgroup_v2() is None:
        why = "no cgroup v2 tree is mounted"
    elif not os.path.exists("/dev/net/tun"):
        why = "no /dev/net/tun"
    if why:
        print(f"SKIPPED: {why}")
        sys.exit(SKIPPED)


class Wire(threading.Thread):
    """Carries IP packets between the hosts; loses, delays or stops them when told to."""

    # What a slow link's queue holds before it drops, as a router would.
    QUEUE_MAX = 10000

    def __init__(self, seed: int):
        super().__init__(daemon=True)
        self.loss = 0.0
        self.delay_s = 0.0
        self.cut: set[bytes] = set()
        self.carried = self.lost = 0
        self._random = random.Random(seed)
        self._ports: dict[bytes, int] = {}
        self._ending = os.pipe()
        self._queue: list[tuple[float, int, bytes]] = []
        self._count = 0

    def add_port(self, pid: int, address: str):
        """Gives the network namespace of `pid` a device named eth0. It goes when its descriptor is closed."""
        made: list[int] = []

        def make():
            libc = ctypes.CDLL(None, use_errno=True)
            with open(f"/proc/{pid}/ns/net") as namespace:
                if libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
                    return
            tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", b"eth0", IFF_TUN_NO_PI))
            made.append(tun)

        thread = threading.Thread(target=make)  # setns() concerns the calling thread alone
        thread.start()
        thread.join()
        if not made:
            raise RuntimeError(f"no network device for {address}")
        self._ports[socket.inet_aton(address)] = made[0]

    def run(self):
        while True:
            wait = max(0.0, self._queue[0][0] - time.monotonic()) if self._queue else None
            ready, _, _ = select.select([self._ending[0], *self._ports.values()], [], [], wait)
            if self._ending[0] in ready:
                return
            for port in ready:
                self._take(port)
            now = time.monotonic()
            while self._queue and self._queue[0][0] <= now:
                _, _, packet = heapq.heappop(self._queue)
                try:
                    os.write(self._ports[packet[16:20]], packet)
                except OSError:
                    self.lost += 1  # the receiver is down or its queue full

    def _take(self, port):
        try:
            packet = os.read(port, 65536)
        except OSError:
            return
        if packet[0] >> 4 != 4 or packet[16:20] not in self._ports:
            return
        if self.cut & {packet[12:16], packet[16:20]} or len(self._queue) >= self.QUEUE_MAX or self._random.random() < self.loss:
            self.lost += 1
            return
        self.carried += 1
        self._count += 1
        heapq.heappush(self._queue, (time.monotonic() + self.delay_s, self._count, packet))

    def close(self):
        os.write(self._ending[1], b"x")
        if self.is_alive():
            self.join()
        for descriptor in (*self._ports.values(), *self._ending):
            os.close(descriptor)


class Host:
    def __init__(self, name: str, work: pathlib.Path, hosts_file: str, boot: bool):
        self.name = name
        self.work = work / name
        self.work.mkdir()
        self.boot = boot
        self.cgroup = cgroup_v2() / f"{work.name}-{name}"
        self.cgroup.mkdir()
        # /dev, /proc and /sys are made anew; these may be on filesystems of their own.
        kept = [ROOT] + ([BIN.parent] if not BIN.is_relative_to(ROOT) else [])
        spaces = ["--mount", "--uts", "--ipc", "--net", "--cgroup"]
        spaces += ["--pid", "--fork", "--kill-child=KILL"] if boot else []
        env = {**os.environ, "WORK": str(self.work), "NAME": name, "HOSTS": hosts_file, "BOOT": "1" if boot else "",
               "KEPT": " ".join(map(str, kept)), "MASKED": " ".join(MASKED)}
        self.log = open(work / f"{name}.log", "wb")
        procs = self.cgroup / "cgroup.procs"
        self.process = subprocess.Popen(
            ["sh", "-c", f"echo $$ >{shlex.quote(str(procs))} && exec unshare \"$@\"", "sh", *spaces, "sh", "-c", PREPARE],
            env=env, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, start_new_session=True)
        self.pid = wait_until(self._first, 20, f"{name} runs")

    def _first(self) -> int:
        """The process that is PID 1 in the host, once it is what the host is to run."""
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.name} did not start: {self.said()}")
        pid = self.process.pid
        if self.boot:
            children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            if not children:
                return 0
            pid = int(children[0])
        name = pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
        return pid if name in ("systemd", "sleep") else 0

    def said(self) -> str:
        return pathlib.Path(self.log.name).read_text(errors="replace")

    def enter(self) -> list[str]:
        spaces = ["--mount", "--uts", "--ipc", "--net", "--cgroup"] + (["--pid"] if self.boot else [])
        return ["nsenter", f"--target={self.pid}", *spaces, "--",
                "env", "-i", "HOME=/root", "LANG=C.UTF-8", "TERM=dumb", f"HERALD_TIER={os.environ.get('HERALD_TIER', '')}",
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]

    def run(self, script: str, check=True, timeout=180) -> subprocess.CompletedProcess:
        """Runs the lines in a shell on the host, in root's home; the first that fails ends it."""
        done = subprocess.run([*self.enter(), "bash", "-c", "cd; set -euo pipefail; " + script],
                              capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
        if check and done.returncode != 0:
            raise RuntimeError(f"on {self.name}, status {done.returncode}: {script}\n{done.stdout}{done.stderr}")
        return done

    def spawn(self, line: str) -> subprocess.Popen:
        return subprocess.Popen([*self.enter(), "bash", "-c", f"cd; exec {line}"], stdin=subprocess.DEVNULL,
                                stdout=self.log, stderr=self.log)

    def file(self, path: str) -> pathlib.Path:
        """A path on the host, as this process can open it."""
        return pathlib.Path(f"/proc/{self.pid}/root{path}")

    def wait_booted(self):
        wait_until(lambda: self.run("systemctl is-system-running", check=False).stdout.strip() in ("running", "degraded"),
                   60, f"systemd on {self.name} is up")

    def thaw(self):
        """After a failure: a frozen filesystem would outlive the host, with every process that waits for it."""
        try:
            self.run("findmnt --raw --noheadings --output TARGET,SOURCE | grep ' /dev/loop' | cut -d' ' -f1 | "
                     "while read -r at; do fsfreeze --unfreeze \"$at\" 2>/dev/null || true; done", check=False, timeout=20)
        except subprocess.SubprocessError as error:
            print(f"{self.name}: cannot thaw: {error}")

    def close(self):
        if self.boot and self.process.poll() is None:
            # SIGKILL of PID 1 takes every process of the host with it.
            os.kill(self.pid, signal.SIGKILL)
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        wait_until(self._remove_cgroup, 30, f"the processes of {self.name} are gone")
        self.log.close()

    def _remove_cgroup(self) -> bool:
        kill = self.cgroup / "cgroup.kill"
        if kill.exists():
            kill.write_text("1")
        for folder, _, _ in os.walk(self.cgroup, topdown=False):
            try:
                os.rmdir(folder)
            except OSError:
                return False
        return True


class Hosts:
    """The hosts by name, on one wire. `people` name those that have no systemd of their own."""

    def __init__(self, addresses: dict[str, str], people: dict[str, str] | None = None,
                 names: dict[str, str] | None = None, seed: int = 1):
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="herald-hosts-"))
        self.wire = Wire(seed)
        self.hosts: dict[str, Host] = {}
        self.disks: list[str] = []
        self.addresses = {**addresses, **(people or {})}
        self.failed = False
        lines = ["127.0.0.1 localhost"]
        for name, address in self.addresses.items():
            lines.append(f"{address} {(names or {}).get(name, '')} {name}")
        try:
            for name, address in self.addresses.items():
                host = Host(name, self.work, "\n".join(lines) + "\n", name in addresses)
                self.hosts[name] = host
                self.wire.add_port(host.pid, address)
                host.run(f"ip link set lo up; ip link set eth0 up mtu 1500; ip address add {address}/32 dev eth0; ip route add default dev eth0")
            self.wire.start()
            for name in addresses:
                self.hosts[name].wait_booted()
            for name in people or {}:
                self._give_ssh(self.hosts[name], names or {})
        except BaseException:
            self.failed = True
            self.close()
            raise

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    def _give_ssh(self, person: Host, names: dict[str, str]):
        cases = " ".join(f"{host.name}{'|' + names[host.name] if host.name in names else ''}) echo {host.pid} ;;"
                         for host in self.hosts.values() if host.boot)
        for name in ("ssh", "scp"):
            path = person.file(f"/usr/local/bin/{name}")
            path.write_text(SSH.replace("@PIDS@", cases))
            path.chmod(0o755)

    def add_disk(self, size_mib: int) -> str:
        """A scratch disk; every host sees it, as all block devices of this machine."""
        image = self.work / f"disk{len(self.disks)}.img"
        with open(image, "wb") as file:
            file.truncate(size_mib << 20)
        disk = subprocess.run(["losetup", "--find", "--show", image], check=True, capture_output=True, text=True)
        self.disks.append(disk.stdout.strip())
        return self.disks[-1]

    def cut(self, name: str):
        """Nothing reaches the host or comes from it until mend()."""
        self.wire.cut = self.wire.cut | {socket.inet_aton(self.addresses[name])}

    def mend(self):
        self.wire.cut = set()

    def close(self):
        if self.failed:
            for host in self.hosts.values():
                print(f"--- {host.name}:\n{host.said()[-3000:]}")
                if host.boot and host.process.poll() is None:
                    try:
                        print(host.run("journalctl --no-pager -n 60 -u 'herald*' -o cat", check=False, timeout=20).stdout)
                    except (subprocess.SubprocessError, OSError) as error:
                        print(error)
        for host in self.hosts.values():
            if self.failed:
                host.thaw()
            host.close()
        self.wire.close()
        for disk in self.disks:
            subprocess.run(["losetup", "-d", disk])
        subprocess.run(["rm", "-rf", "--one-file-system", str(self.work)])

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        self.failed = self.failed or kind is not None
        self.close()
        return False
