#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A protected disk that hangs, its reads never returning, does not keep the replicator from ending: SIGTERM ends it
within a bound, the log names the disk, another disk ends as ever, and after the next start all is in sync.
One that hangs while it is frozen for a point, or in its freeze or thaw, leaves the other disks, their points and the
log alone; neither `cbtctl list` nor the server call it protected; unprotected it is let go when it answers, or at the
next start. A loop device on a file that cannot be looked at holds up no point. A state directory that hangs keeps
points from being taken, which say so, and nothing else."""
import ctypes
import errno
import json
import os
import pathlib
import signal
import socket
import stat
import struct
import sys
import tempfile
import threading
import time

from rig import Rig, run, seeded, sha256_of, skip_unless_possible, wait_until

# How long a disk may not answer (10 s), and what a busy host adds.
BOUND_S = 20
# A freeze's deadline (10 s), and the same.
FREEZE_BOUND_S = 20
SILENT_AFTER_S = 31


class HangingFile:
    """A file of a small FUSE file system, spoken to the kernel directly: what is read from it never comes while
    `hang` is set, what is written to it is never done while `hang_writes` is, and its name is not looked up while
    `hang_names` is. A loop device over it is a disk that hangs."""
    NODE = 2
    LOOKUP, READ, WRITE = 1, 15, 16

    def __init__(self, size: int):
        self.size = size
        self.data = bytearray(os.urandom(1 << 20) * (size >> 20))
        self.hang = self.hang_writes = self.hang_names = False
        self.held = []
        self.lock = threading.Lock()  # guards these
        self.mount = pathlib.Path(tempfile.mkdtemp(prefix="herald-fuse-"))
        self.path = self.mount / "disk"
        self.fd = os.open("/dev/fuse", os.O_RDWR)
        self.libc = ctypes.CDLL(None, use_errno=True)
        options = f"fd={self.fd},rootmode=40000,user_id=0,group_id=0,max_read=131072".encode()
        if self.libc.mount(b"hanging", str(self.mount).encode(), b"fuse", 0, options) != 0:
            raise OSError(ctypes.get_errno(), "mount fuse")
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def attributes(self, node: int) -> bytes:
        mode = stat.S_IFDIR | 0o755 if node == 1 else stat.S_IFREG | 0o600
        size = 0 if node == 1 else self.size
        return struct.pack("<QQQQQQIIIIIIIIII", node, size, size // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)

    def answer(self, unique: int, body: bytes = b"", error: int = 0):
        os.write(self.fd, struct.pack("<IiQ", 16 + len(body), -error, unique) + body)

    def serve(self):
        while True:
            try:
                request = os.read(self.fd, (1 << 20) + 4096)
            except OSError as error:
                if error.errno in (errno.EINTR, errno.ENOENT):
                    continue
                return  # unmounted
            _, opcode, unique, node = struct.unpack_from("<IIQQ", request)
            body = request[40:]
            if opcode == 26:  # init
                self.answer(unique, struct.pack("<IIIIHHII9I", 7, 31, 1 << 20, 0, 64, 48, 1 << 20, 1, *[0] * 9))
            elif opcode in (self.LOOKUP, self.READ, self.WRITE):
                with self.lock:
                    hangs = {self.LOOKUP: self.hang_names, self.READ: self.hang, self.WRITE: self.hang_writes}[opcode]
                    if hangs:
                        self.held.append((opcode, unique, body))
                if not hangs:
                    self.give(opcode, unique, body)
            elif opcode == 3:  # getattr
                self.answer(unique, struct.pack("<QII", 3600, 0, 0) + self.attributes(node))
            elif opcode in (14, 27):  # open, opendir
                self.answer(unique, struct.pack("<QII", 1, 1 if opcode == 14 else 0, 0))  # past the page cache
            elif opcode in (2, 36, 42):  # forget, interrupt, batch of forget: no answer
                pass
            elif opcode in (18, 20, 25, 29):  # release, fsync, flush, releasedir
                self.answer(unique)
            else:
                self.answer(unique, error=errno.ENOSYS)

    def give(self, opcode: int, unique: int, body: bytes):
        if opcode == self.LOOKUP:  # the name is asked for each time, the attributes are not
            if body.rstrip(b"\0") == b"disk":
                self.answer(unique, struct.pack("<QQQQII", self.NODE, 0, 0, 3600, 0, 0) + self.attributes(self.NODE))
            else:
                self.answer(unique, error=errno.ENOENT)
            return
        _, offset, size = struct.unpack_from("<QQI", body)
        if opcode == self.READ:
            self.answer(unique, bytes(self.data[offset:offset + size]))
        else:
            self.data[offset:offset + size] = body[40:40 + size]
            self.answer(unique, struct.pack("<II", size, 0))

    def go_on(self):
        with self.lock:
            self.hang = self.hang_writes = self.hang_names = False
            held, self.held = self.held, []
        for request in held:
            self.give(*request)

    def close(self):
        self.go_on()
        self.libc.umount2(str(self.mount).encode(), 2)
        os.close(self.fd)
        self.mount.rmdir()


def check(rig: Rig, hanging: HangingFile, disk: str):
    hanging.hang = True
    rig.cbtctl("protect", disk)
    wait_until(lambda: hanging.held, 30, "the disk's first reads hang")
    began = time.monotonic()
    rig.processes["replicator"].send_signal(signal.SIGTERM)
    status = rig.wait_dead("replicator", BOUND_S)
    took = time.monotonic() - began
    log = rig.log("replicator")
    print(f"ended {took:.1f} s after SIGTERM with {len(hanging.held)} reads that never returned, status {status}")
    print([line for line in log.splitlines() if "does not answer" in line][0])
    if status != 0 or f"{disk}: does not answer" not in log or f"{rig.loop}: does not answer" in log:
        raise AssertionError(f"status {status}; the log must name the disk that hangs alone:\n{log[-2000:]}")
    if took < 9:
        raise AssertionError(f"given up after {took:.1f} s: a slow disk needs more time")
    hanging.go_on()
    # A disk that is slow and comes back in time is waited for.
    rig.start_replicator()
    wait_until(lambda: disk in states(rig), 10, "it was found again")
    rig.cbtctl("status", disk, "--wait-synced", "--timeout", 60)
    rig.cbtctl("tag", disk, "--name", "after")
    disks = rig.herald("disks", "--json").stdout
    name = [d["disk"] for d in json.loads(disks)["disks"] if disk + " " in d["name"]][0]
    image = rig.images / "hung.img"
    rig.herald("restore", name, "--latest", "--to", image)
    if sha256_of(image) != run("sh", "-c", f"dd if={disk} iflag=direct bs=1M status=none | sha256sum").stdout[:64]:
        raise AssertionError("the disk that hung is not what was restored")
    print("after the next start: in sync, restored exactly")
    rig.cbtctl("unprotect", disk)


def states(rig: Rig) -> dict:
    disks = json.loads(rig.cbtctl("list", "--json", timeout=20).stdout)["disks"]
    return {d["path"]: (d["state"], d["cause"]) for d in disks}


def server_states(rig: Rig) -> dict:
    disks = json.loads(rig.herald("disks", "--json").stdout)["disks"]
    return {d["name"].split()[0]: d["state"] for d in disks}


def ask_point(rig: Rig, disk: str, name: str, on_message, hold: bool = False) -> dict:
    """The final message; `on_message` is called with each one before it."""
    with socket.socket(socket.AF_UNIX) as client, client.makefile() as lines:
        client.settimeout(FREEZE_BOUND_S + 10)
        client.connect(str(rig.run_dir / "replicator.sock"))
        client.sendall(json.dumps({"op": "tag", "disk": disk, "name": name, "hold": hold}).encode() + b"\n")
        for line in lines:
            message = json.loads(line)
            if "phase" not in message and "frozen" not in message:
                return message
            on_message(message)
            if "frozen" in message:
                client.sendall(b'{"op": "thaw"}\n')
    raise AssertionError(f"no answer to the point {name}")


def hang_frozen(rig: Rig, hanging: HangingFile, disk: str, mount: pathlib.Path, what: str = "hang",
                answer: str = "did not answer"):
    """Has the disk hang between the catch-up and the end of a point's freeze, and returns the point's answer."""
    for attempt in range(20):
        (mount / "file").write_bytes(os.urandom(100_000))
        began = 0.0

        def freezing(message):
            nonlocal began
            if message.get("phase") == "freezing":
                setattr(hanging, what, True)
                began = time.monotonic()
        message = ask_point(rig, disk, f"frozen{attempt}", freezing)
        if hanging.held and answer in json.dumps(message):
            return message, time.monotonic() - began
        hanging.go_on()  # the reads were done before
        wait_until(lambda: states(rig)[disk][0] == "protected", 30, "it goes on")
    raise AssertionError("nothing was under way during a freeze")


def check_hung_writes(rig: Rig, hanging: HangingFile, disk: str, mount: pathlib.Path):
    """A FIFREEZE that hangs, then a FITHAW."""
    for which in ("freeze", "thaw"):
        if which == "freeze":
            answer, took = hang_frozen(rig, hanging, disk, mount, "hang_writes", "freeze: the disk did not answer")
        else:
            began = time.monotonic()

            def frozen(message):
                hanging.hang_writes = "frozen" in message
            answer = ask_point(rig, disk, "held", frozen, hold=True)
            took = time.monotonic() - began
        print(f"point whose {which} hung: {json.dumps(answer)[:160]}, {took:.1f} s")
        if f"did not answer{' the thaw' if which == 'thaw' else ''}" not in json.dumps(answer) or took > FREEZE_BOUND_S:
            raise AssertionError("it must be refused with its reason")
        if not hanging.held:
            raise AssertionError("no write was under way")
        rig.cbtctl("tag", rig.loop, "--name", f"beside a {which}", timeout=FREEZE_BOUND_S)
        wait_until(lambda: "has not answered" in states(rig)[disk][1], BOUND_S, "cbtctl list says so")
        if states(rig)[rig.loop][0] != "protected":
            raise AssertionError(f"the other disk is protected: {states(rig)}")
        hanging.go_on()
        wait_until(lambda: states(rig)[disk][0] == "protected", 30, "it goes on when it answers")
        (mount / "file").write_bytes(b"not frozen")
        rig.cbtctl("tag", disk, "--name", f"after a {which}", timeout=60)


def check_engine(rig: Rig, hanging: HangingFile, disk: str, mount: pathlib.Path, engine: str):
    rig.kill("replicator", signal.SIGTERM)
    text = rig.replicator_toml.read_text()
    rig.replicator_toml.write_text(text.replace("[replicator]", f'[replicator]\nio_engine = "{engine}"', 1))
    rig.start_replicator()
    rig.cbtctl("status", disk, "--wait-synced", "--timeout", 60)
    hanging.hang = True
    rig.cbtctl("resync", disk, "--full")
    hung = wait_until(lambda: (lambda s: s if s[0] == "degraded" else None)(states(rig)[disk]), BOUND_S,
                      f"{engine}: cbtctl list says that the disk does not answer")
    print(f"{engine}: {hung}")
    if "has not answered" not in hung[1] or states(rig)[rig.loop][0] != "protected":
        raise AssertionError(f"the state names the disk that hangs, alone: {states(rig)}")
    hanging.go_on()
    wait_until(lambda: states(rig)[disk][0] == "protected", 30, "it goes on when it answers")
    answer, took = hang_frozen(rig, hanging, disk, mount)
    print(f"{engine}: point: {json.dumps(answer)[:160]}, {took:.1f} s")
    if took > FREEZE_BOUND_S:
        raise AssertionError("it must be refused with its reason at the deadline")
    hanging.go_on()
    wait_until(lambda: states(rig)[disk][0] == "protected", 30, "it goes on when it answers")
    rig.replicator_toml.write_text(text)
    rig.kill("replicator", signal.SIGTERM)
    rig.start_replicator()
    rig.cbtctl("status", disk, "--wait-synced", "--timeout", 60)


def check_hung_name(rig: Rig):
    """A loop device, on no disk of ours, on a file that stat() hangs at."""
    other = HangingFile(8 << 20)
    device = ""
    try:
        device = run("losetup", "--find", "--show", other.path).stdout.strip()
        other.hang_names = True
        began = time.monotonic()
        rig.cbtctl("tag", rig.loop, "--name", "beside a dead mount", timeout=BOUND_S)
        print(f"point beside a loop device whose file cannot be looked at: {time.monotonic() - began:.1f} s")
    finally:
        other.go_on()
        if device:
            run("losetup", "-d", device, check=False)
        other.close()


def check_state_dir(hanging: HangingFile):
    with Rig(size_mib=64, mounted=False) as rig:
        state = rig.work / "state/replicator"  # not the server's
        state.mkdir(parents=True)
        device = ""
        try:
            device = run("losetup", "--find", "--show", hanging.path).stdout.strip()
            run("mkfs.ext4", "-q", "-F", device)
            run("mount", device, state)
            rig.start()
            rig.protect()
            hanging.hang_writes = True
            # Refused already, if a scheduled one was being written down.
            rig.cbtctl("tag", rig.loop, "--name", "stored", check=False, timeout=60)
            wait_until(lambda: hanging.held, 10, "the point is being written down")
            began = time.monotonic()
            refused = rig.cbtctl("tag", rig.loop, "--name", "refused", check=False, timeout=60)
            print(f"state directory hangs: {refused.stderr.strip()}, {time.monotonic() - began:.1f} s")
            if refused.returncode == 0 or "state directory" not in refused.stderr:
                raise AssertionError("the point must be refused by name")
            before = rig.status()["stored"]
            run("dd", "if=/dev/urandom", f"of={rig.loop}", "bs=1M", "count=1", "oflag=direct", "status=none")
            wait_until(lambda: rig.status()["stored"] > before, 20, "what is written goes to the server all the same")
            hanging.go_on()
            rig.cbtctl("tag", rig.loop, "--name", "again", timeout=60)
        finally:
            hanging.go_on()
            rig.kill("replicator", signal.SIGTERM)
            if os.path.ismount(state):
                wait_until(lambda: run("umount", state, check=False).returncode == 0, 30, "it is unmounted")
            if device:
                run("losetup", "-d", device, check=False)


def check_frozen(rig: Rig, hanging: HangingFile, disk: str, mount: pathlib.Path):
    rig.cbtctl("protect", disk)
    rig.cbtctl("status", disk, "--wait-synced", "--timeout", 60)
    answer, took = hang_frozen(rig, hanging, disk, mount)
    print(f"point of the disk that hung while frozen: {json.dumps(answer)[:160]}, {took:.1f} s after the freeze began")
    if "did not answer" not in json.dumps(answer) or took > FREEZE_BOUND_S:
        raise AssertionError("it must be refused with its reason")
    began = time.monotonic()
    rig.cbtctl("tag", rig.loop, "--name", "healthy", timeout=FREEZE_BOUND_S)
    print(f"point of the other disk: {time.monotonic() - began:.1f} s")
    if f"{disk}: point 'frozen" not in rig.log("replicator") or "'healthy' is stored" not in rig.log("replicator"):
        raise AssertionError("the log is mute")
    hung = wait_until(lambda: (lambda s: s if s[0] == "degraded" else None)(states(rig)[disk]), BOUND_S,
                      "cbtctl list says that the disk does not answer")
    print(f"cbtctl list: {hung}")
    if "has not answered" not in hung[1] or states(rig)[rig.loop][0] != "protected":
        raise AssertionError(f"the state names the disk that hangs, alone: {states(rig)}")
    wait_until(lambda: server_states(rig)[disk] == "silent", SILENT_AFTER_S + BOUND_S, "the server does not vouch for it")
    print(f"herald disks: {server_states(rig)}")
    if server_states(rig)[rig.loop] != "protected":
        raise AssertionError("the other disk is protected")
    hanging.go_on()
    wait_until(lambda: states(rig)[disk][0] == "protected", 30, "it goes on when it answers")
    wait_until(lambda: server_states(rig)[disk] == "protected", 60, "the server hears of it again")


def unprotect_hung(rig: Rig, hanging: HangingFile, disk: str, mount: pathlib.Path):
    hang_frozen(rig, hanging, disk, mount)
    began = time.monotonic()
    done = rig.cbtctl("unprotect", disk, check=False, timeout=BOUND_S + 5)
    print(f"unprotect: {done.stderr.strip()}, {time.monotonic() - began:.1f} s")
    if done.returncode == 0 or "let go when" not in done.stderr:
        raise AssertionError(f"unprotect must say that it has to wait: {done}")
    again = rig.cbtctl("protect", disk, check=False, timeout=BOUND_S)
    if again.returncode == 0 or "let go when" not in again.stderr:
        raise AssertionError(f"two must not protect one disk: {again}")


def check_unprotect(rig: Rig, hanging: HangingFile, disk: str, mount: pathlib.Path):
    pins = rig.run_dir / "bpf" / json.loads(rig.cbtctl("status", disk, "--json").stdout)["disk"]
    if not pins.exists():
        raise AssertionError(f"no {pins}")
    unprotect_hung(rig, hanging, disk, mount)
    hanging.go_on()
    wait_until(lambda: f"{disk}: answered, and was let go" in rig.log("replicator"), 15, "it is let go")
    if pins.exists():
        raise AssertionError(f"{pins} is left")
    rig.cbtctl("protect", disk)
    rig.cbtctl("status", disk, "--wait-synced", "--timeout", 60)
    unprotect_hung(rig, hanging, disk, mount)
    began = time.monotonic()
    rig.processes["replicator"].send_signal(signal.SIGTERM)
    status = rig.wait_dead("replicator", BOUND_S)
    print(f"ended {time.monotonic() - began:.1f} s after SIGTERM, status {status}")
    if status != 0 or f"{disk}: does not answer" not in rig.log("replicator").split("stopping;")[-1]:
        raise AssertionError(f"status {status}; the log must name the disk:\n{rig.log('replicator')[-2000:]}")
    hanging.go_on()
    # It was not let go; the next one does that.
    rig.start_replicator()
    wait_until(lambda: not pins.exists(), 15, "nothing is left of its tracker")


def main() -> int:
    skip_unless_possible()
    if not os.path.exists("/dev/fuse"):
        print("SKIPPED: no /dev/fuse")
        return 77
    seeded()
    with Rig(size_mib=64, mounted=False, server_config=f"[limits]\nsilent_after_seconds = {SILENT_AFTER_S}") as rig:
        rig.start()
        rig.protect()
        hanging = HangingFile(32 << 20)
        disk = ""
        mount = rig.work / "hanging"
        mount.mkdir()
        try:
            disk = run("losetup", "--find", "--show", hanging.path).stdout.strip()
            check(rig, hanging, disk)
            run("mkfs.ext4", "-q", disk)
            run("mount", disk, mount)
            check_frozen(rig, hanging, disk, mount)
            check_hung_writes(rig, hanging, disk, mount)
            check_hung_name(rig)
            for engine in ("libaio", "pread"):
                check_engine(rig, hanging, disk, mount, engine)
            check_unprotect(rig, hanging, disk, mount)
        finally:
            hanging.go_on()
            if os.path.ismount(mount):
                wait_until(lambda: run("umount", mount, check=False).returncode == 0, 30, "it is unmounted")
            if disk:
                run("losetup", "-d", disk, check=False)
            hanging.close()
    hanging = HangingFile(32 << 20)
    try:
        check_state_dir(hanging)
    finally:
        hanging.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
