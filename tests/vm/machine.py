# SPDX-License-Identifier: Apache-2.0
"""A machine that boots a Debian kernel in seconds, takes commands, and can be cut from its power.

    kernel = kernels.find("6.1")
    initramfs = Initramfs(kernel).modules("virtio_blk").program("mkfs.ext4")
    with Machine("name", initramfs, disks=[Disk("virtio-blk", size_mib=64)]) as machine:
        machine.boot()
        machine.run("mkfs.ext4 -q /dev/vda")      # output; a failed command raises
        machine.power_cut()                       # QEMU is killed; boot() again with the same disks

Promise: nothing outlives `with`; whatever hangs in the guest ends with its timeout; a kernel that
complains (see COMPLAINTS) fails the test even when its commands succeed.
Emulated (TCG) always: /dev/kvm may be there and hang.
Failure: GuestFailed, with the end of the console; the whole log stays in HERALD_BUILD_DIR/vm/NAME/.
"""
import base64
import contextlib
import ctypes
import dataclasses
import json
import math
import mmap
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from initramfs import Initramfs

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("HERALD_BUILD_DIR", ROOT / "build/dev"))
BIN = pathlib.Path(os.environ.get("HERALD_BIN_DIR", BUILD / "bin"))
TIER = os.environ.get("HERALD_TIER") or "check"
SKIPPED = 77
# For what the guest says of a command that is overdue.
OVERDUE_SECONDS = 15
# Of silence on the control line.
WAKE_SECONDS = 5
BOOT_SECONDS = 180
# The host, of a machine with a network.
HOST_ADDRESS = "10.0.2.2"
# What a healthy kernel does not say.
COMPLAINTS = re.compile(r"BUG:|WARNING:|Oops|Call Trace|KASAN|Kernel panic|general protection|circular locking|"
                        r"blocked for more than|unreferenced object|UBSAN:|DEBUG_LOCKS_WARN_ON|INFO: trying to register|"
                        r"HERALD-VM: .* does not load")


class GuestFailed(AssertionError):
    pass


@dataclasses.dataclass
class Disk:
    """One disk of a machine. `kind`: virtio-blk, virtio-scsi, nvme, sata; empty when one
    of the machine's `devices` uses it by its id. Without an image or a
    backend of its own, an empty sparse file of size_mib that ends with the machine."""
    kind: str
    size_mib: int = 0
    image: pathlib.Path | None = None
    backend: object | None = None   # has socket, as LossyDisk
    blockdev: dict | None = None    # QEMU's own words, instead of either
    serial: str = ""
    wwn: str = ""                   # 0x and 16 digits; scsi and sata only
    options: str = ""               # more of the device, ",discard_granularity=4096"
    # Past the host's page cache.
    direct: bool = False
    id: str = ""


class Qmp:
    """QEMU's monitor: one command at a time, one answer, events kept."""

    def __init__(self, path: pathlib.Path, timeout: float):
        self.socket = connect(path, timeout)
        self.socket.settimeout(timeout)
        self.lines = self.socket.makefile("r")
        self.events: list[dict] = []
        self.lines.readline()
        self("qmp_capabilities")

    def __call__(self, command: str, **arguments):
        request = {"execute": command, "arguments": {k.replace("_", "-"): v for k, v in arguments.items()}}
        self.socket.sendall(json.dumps(request).encode() + b"\n")
        while True:
            answer = json.loads(self.lines.readline())
            if "event" in answer:
                self.events.append(answer)
            elif "error" in answer:
                raise GuestFailed(f"QEMU refuses {request}: {answer['error']['desc']}")
            else:
                return answer["return"]

    def wait_event(self, name: str, **data) -> dict:
        def wanted(event):
            return event["event"] == name and all(event["data"].get(k) == v for k, v in data.items())
        while True:
            for event in self.events:
                if wanted(event):
                    self.events.remove(event)
                    return event
            answer = json.loads(self.lines.readline())
            if "event" in answer:
                self.events.append(answer)


def connect(path: pathlib.Path, seconds: float) -> socket.socket:
    ends = time.monotonic() + seconds
    while True:
        stream = socket.socket(socket.AF_UNIX)
        try:
            stream.connect(str(path))
            return stream
        except OSError:
            stream.close()
            if time.monotonic() > ends:
                raise
            time.sleep(0.02)


def tsc_khz() -> int:
    """How fast the host's time stamp counter runs, which is the guest's too. A guest that finds out by
    itself is wrong by factors on a busy host, and its clock with it."""
    code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(bytes.fromhex("0f31" "48c1e220" "4809d0" "c3"))  # rdtsc; shl rdx, 32; or rax, rdx; ret
    rdtsc = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(ctypes.c_char.from_buffer(code)))

    def look() -> tuple[int, int]:
        # The one of several that nothing came between.
        return min((time.monotonic_ns() - began, began, ticks)
                   for began, ticks in ((time.monotonic_ns(), rdtsc()) for _ in range(20)))[1:]
    began, ticks_before = look()
    time.sleep(0.1)
    ended, ticks_after = look()
    return (ticks_after - ticks_before) * 1_000_000 // (ended - began)


class Machine:
    def __init__(self, name: str, initramfs: Initramfs, disks=(), memory_mib=1024, processors=2, chipset="q35",
                 command_line="", devices=(), counted=False, network=False):
        """network: after connect_network() the guest reaches what listens on the host's 127.0.0.1 at HOST_ADDRESS; the
        initramfs needs virtio_net.
        counted: a nanosecond of the guest's is an instruction, exactly; one processor, and idle time is
        skipped. Without the processor's fast string instructions, of which each step would count."""
        self.name, self.disks, self.chipset = name, list(disks), chipset
        self.memory_mib, self.processors, self.command_line = memory_mib, processors, command_line
        self.counted = counted
        assert not counted or processors == 1, "QEMU counts the instructions of one processor only"
        self.devices = [word for device in devices for word in ("-device", device)]
        if network:
            self.devices += ["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="]
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="herald-vm-"))
        self.logs = BUILD / "vm" / name
        shutil.rmtree(self.logs, ignore_errors=True)
        self.logs.mkdir(parents=True)
        self.kernel = initramfs.kernel
        # All that it looks at makes it five times slower; and it would look at 256 places for a SCSI disk,
        # before anything else.
        self.debug = self.kernel.line.endswith("-debug")
        if self.debug:
            self.command_line = f"scsi_mod.scan=async {command_line}".strip()
        self.initrd = initramfs.write(self.work / "initramfs")
        self.process: subprocess.Popen | None = None
        self.boots = self.number = 0
        self.said = 0          # how much of the console was looked at
        self.tolerated: list[str] = []
        for index, disk in enumerate(self.disks):
            disk.id = disk.id or f"disk{index}"
            if not (disk.image or disk.backend or disk.blockdev):
                disk.image = self.work / f"{disk.id}.img"
                with open(disk.image, "wb") as file:
                    file.truncate(disk.size_mib << 20)

    # -- power --
    def boot(self) -> float:
        """Ready for commands when it returns; the seconds it took."""
        assert self.process is None, "the machine is on"
        began = time.monotonic()
        self.boots += 1
        self.number = self.said = 0
        sockets = [self.work / name for name in ("control", "monitor")]
        for path in sockets:
            path.unlink(missing_ok=True)
        with open(self.logs / f"qemu-{self.boots}.log", "wb") as log:
            self.process = subprocess.Popen(self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            control = connect(sockets[0], 10)
            self.control, self.unread = control, b""
            self.qmp = Qmp(sockets[1], 60)
            self._answer(0, BOOT_SECONDS * (4 if self.debug else 1))
        except OSError as error:
            raise GuestFailed(f"{self.name} does not boot: {error}\n{self.tail()}") from error
        return time.monotonic() - began

    def power_cut(self) -> None:
        """As when the plug is pulled: nothing in the guest gets a last word. What the guest had not
        flushed is lost only on a LossyDisk: the host keeps its page cache."""
        self.look_for_complaints()
        self._end(signal.SIGKILL)
        for disk in self.disks:
            if disk.backend:
                disk.backend.cut()

    def shut_down(self) -> None:
        self.look_for_complaints()
        self._send("poweroff -f", 0)
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            raise GuestFailed(f"{self.name} does not power off\n{self.tail()}") from None
        finally:
            self._end(signal.SIGKILL)

    # -- commands --
    def attempt(self, command: str, timeout=120.0) -> tuple[int, str]:
        """Status and output of a shell command in the guest. When it is overdue the guest says on its console what
        it hangs at; not where instructions are counted, as time runs differently there."""
        self._send(command, 0 if self.counted else math.ceil(timeout))
        return self._answer(self.number, timeout, OVERDUE_SECONDS)

    def run(self, command: str, timeout=120.0) -> str:
        status, output = self.attempt(command, timeout)
        if status != 0:
            raise GuestFailed(f"{self.name}: status {status} of: {command}\n{output}\n{self.tail()}")
        return output.strip()

    def wait(self, command: str, seconds=60.0, every=0.3) -> str:
        """Until the command succeeds."""
        ends = time.monotonic() + seconds
        while True:
            status, output = self.attempt(command)
            if status == 0:
                return output.strip()
            if time.monotonic() > ends:
                raise GuestFailed(f"{self.name}: after {seconds} s still status {status}: {command}\n{output}\n"
                                  f"{self.tail()}")
            time.sleep(every)

    def connect_network(self) -> None:
        """After each boot."""
        self.wait("ip link set eth0 up && ip address add 10.0.2.15/24 dev eth0")

    # -- disks while it runs --
    def unplug(self, disk: Disk) -> None:
        """As the operator would; returns when the guest has let go of it."""
        self.qmp("device_del", id=disk.id)
        try:
            self.qmp.wait_event("DEVICE_DELETED", device=disk.id)
        except (OSError, ValueError) as error:
            raise GuestFailed(f"{self.name} does not let go of {disk.id}: {error}\n{self.tail()}") from error

    def plug(self, disk: Disk) -> None:
        words = dict(word.split("=", 1) for word in self._device(disk, self.disks.index(disk)).split(",")[1:])
        driver = self._device(disk, self.disks.index(disk)).split(",")[0]
        self.qmp("device_add", driver=driver, **words)

    def node(self, disk: Disk, seconds=30.0) -> str:
        """Where the guest has the disk, by its serial number: names follow the order of discovery."""
        return self.wait(f"""
            for disk in /sys/block/*; do
                cd $disk && cat serial device/serial device/vpd_pg80 device/wwid 2>/dev/null | tr -d '\0' |
                    grep -q '{disk.serial}' && test "$(cat size)" -gt 0 && echo /dev/${{disk##*/}} && exit 0
            done
            exit 1""", seconds)

    # -- what it said --
    def console(self) -> str:
        path = self.logs / f"console-{self.boots}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def tail(self, lines=100) -> str:
        # Also what QEMU itself said: a wrong option ends it before there is a console.
        own = (self.logs / f"qemu-{self.boots}.log").read_text(errors="replace")
        return f"{own}--- the end of {self.logs}/console-{self.boots}.log:\n" + \
            "\n".join(self.console().splitlines()[-lines:])

    def tolerate(self, *words: str) -> None:
        """Complaints that the test causes on purpose."""
        self.tolerated += words

    # -- inside --
    def _command(self) -> list[str]:
        q35 = self.chipset == "q35"
        # QEMU's time stamp counter runs at the rate of its virtual clock when that counts instructions.
        khz = 1_000_000 if self.counted else tsc_khz()
        # Whatever ends the test, a time limit too, ends the machine.
        words = ["setpriv", "--pdeathsig", "KILL",
                 "qemu-system-x86_64", "-M", self.chipset,
                 *(("-accel", "tcg", "-icount", "shift=0,sleep=off", "-cpu", "max,-erms") if self.counted else
                   ("-accel", "tcg,thread=multi", "-cpu", "max")),
                 "-m", str(self.memory_mib), "-smp", str(self.processors), "-nodefaults", "-display", "none",
                 "-no-reboot", "-kernel", str(self.kernel.image), "-initrd", str(self.initrd),
                 "-append", "console=ttyS0 panic=-1 loglevel=5 mitigations=off tsc=reliable no_timer_check "
                 f"tsc_early_khz={khz} random.trust_cpu=on cryptomgr.notests nowatchdog {self.command_line}".strip(),
                 "-chardev", f"file,id=console,path={self.logs}/console-{self.boots}.log",
                 "-serial", "chardev:console",
                 "-chardev", f"socket,id=control,path={self.work}/control,server=on,wait=on",
                 "-serial", "chardev:control",
                 "-qmp", f"unix:{self.work}/monitor,server=on,wait=off",
                 "-device", "virtio-scsi-pci,id=scsi"]
        for index, disk in enumerate(self.disks):
            if disk.blockdev:
                node = {**disk.blockdev, "node-name": disk.id}
            elif disk.backend:
                node = {"driver": "nbd", "server": {"type": "unix", "path": str(disk.backend.socket)},
                        "discard": "unmap", "node-name": disk.id}
            else:
                node = {"driver": "raw", "file": {"driver": "file", "filename": str(disk.image)},
                        "cache": {"direct": disk.direct}, "discard": "unmap", "node-name": disk.id}
            words += ["-blockdev", json.dumps(node)]
            if q35:
                words += ["-device", f"pcie-root-port,id=port{index},chassis={index + 1},slot={index + 1}"]
            if disk.kind:
                words += ["-device", self._device(disk, index)]
        return words + self.devices

    def _device(self, disk: Disk, index: int) -> str:
        port = f",bus=port{index}" if self.chipset == "q35" else ""
        serial = f",serial={disk.serial}" if disk.serial else ""
        wwn = f",wwn={disk.wwn}" if disk.wwn else ""
        common = f",id={disk.id},drive={disk.id}{serial}{disk.options}"
        if disk.kind == "virtio-blk":
            return "virtio-blk-pci" + common + port
        if disk.kind == "nvme":
            return "nvme" + common + port
        if disk.kind == "virtio-scsi":
            return f"scsi-hd{common}{wwn},bus=scsi.0,lun={index}"
        if disk.kind == "sata":
            # AHCI has six buses of one disk; the older chipset two of two.
            number = [other.kind for other in self.disks[:index]].count("sata")
            bus = f"ide.{number}" if self.chipset == "q35" else f"ide.{number // 2},unit={number % 2}"
            return f"ide-hd{common}{wwn},bus={bus}"
        raise ValueError(f"no disk is of kind {disk.kind}")

    def _send(self, command: str, seconds: int) -> None:
        self.number += 1
        try:
            self.control.sendall(b"%d %d %s\n" % (self.number, seconds, base64.b64encode(command.encode())))
        except OSError:
            raise GuestFailed(f"{self.name} is gone\n{self.tail()}") from None

    def _answer(self, number: int, timeout: float, grace=0) -> tuple[int, str]:
        ends = time.monotonic() + timeout + grace
        while True:
            while b"\n" in self.unread:
                line, self.unread = self.unread.split(b"\n", 1)
                words = line.decode().split(" ")
                if words[0] == str(number):
                    output = words[2] if len(words) > 2 else ""
                    return int(words[1]), base64.b64decode(output).decode(errors="replace")
            left = ends - time.monotonic()
            self.control.settimeout(max(0.01, min(left, WAKE_SECONDS)))
            try:
                more = self.control.recv(65536)
            except TimeoutError:
                if left > WAKE_SECONDS:
                    # An interrupt of the serial line that was lost would keep both sides waiting for ever.
                    # Where instructions are counted this one would be among them.
                    if not self.counted:
                        with contextlib.suppress(TimeoutError):
                            self.control.sendall(b"\n")
                    continue
                raise GuestFailed(f"{self.name}: no answer to command {number} within {timeout} s\n"
                                  f"{self.tail()}") from None
            if not more:
                raise GuestFailed(f"{self.name} ended by itself\n{self.tail()}")
            self.unread += more

    def look_for_complaints(self) -> None:
        """Of what it said since the last look."""
        text = self.console()
        fresh, self.said = text[self.said:], len(text)
        for line in fresh.splitlines():
            if COMPLAINTS.search(line) and not any(words in line for words in self.tolerated):
                raise GuestFailed(f"{self.name}: the kernel complains: {line}\n{self.tail()}")

    def _end(self, how=signal.SIGKILL) -> None:
        if self.process:
            if self.process.poll() is None:
                self.process.send_signal(how)
            self.process.wait()
            self.control.close()
            self.qmp.socket.close()
            self.process = None

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        try:
            if self.process and kind is None:
                self.look_for_complaints()
        finally:
            if self.process:
                self.process.kill()
                self.process.wait()
            for disk in self.disks:
                if disk.backend:
                    disk.backend.close()
            shutil.rmtree(self.work, ignore_errors=True)
        return False


def scaled(check: int, ci: int, nightly: int) -> int:
    """A count by tier."""
    return {"check": check, "ci": ci, "nightly": nightly}[TIER]


def kernel_lines(all_from: str = "ci") -> list[str]:
    """The kernels of this tier: one, and from the named tier on all."""
    tiers = ["check", "ci", "nightly"]
    return ["6.1", "6.12"] if tiers.index(TIER) >= tiers.index(all_from) else ["6.1"]


def skip_unless_possible() -> None:
    """Ends the test, loudly, where the host has no machine."""
    for program in ("qemu-system-x86_64", "busybox", "modprobe", "apt-get"):
        if not shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin"):
            print(f"SKIPPED: {program} is not installed")
            sys.exit(SKIPPED)
