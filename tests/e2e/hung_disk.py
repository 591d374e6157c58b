#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A protected disk that hangs, its reads never returning, does not keep the replicator from ending: SIGTERM ends it
within a bound, the log names the disk, another disk ends as ever, and after the next start all is in sync.
One that hangs while it is frozen for a point, too, leaves the other disks, their points and the log alone; neither
`cbtctl list` nor the server call it protected; unprotected it is let go when it answers, or at the end."""
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
    `hang` is set. A loop device over it is a disk that hangs."""
    NODE = 2

    def __init__(self, size: int):
        self.size = size
        self.data = bytearray(os.urandom(1 << 20) * (size >> 20))
        self.hang = False
        self.held = []
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
            elif opcode == 1:  # lookup
                if body.rstrip(b"\0") == b"disk":
                    self.answer(unique, struct.pack("<QQQQII", self.NODE, 0, 60, 60, 0, 0) + self.attributes(self.NODE))
                else:
                    self.answer(unique, error=errno.ENOENT)
            elif opcode == 3:  # getattr
                self.answer(unique, struct.pack("<QII", 60, 0, 0) + self.attributes(node))
            elif opcode in (14, 27):  # open, opendir
                self.answer(unique, struct.pack("<QII", 1, 1 if opcode == 14 else 0, 0))  # past the page cache
            elif opcode == 15:  # read
                if self.hang:
                    self.held.append((unique, body))
                else:
                    self.give(unique, body)
            elif opcode == 16:  # write
                _, offset, size = struct.unpack_from("<QQI", body)
                self.data[offset:offset + size] = body[40:40 + size]
                self.answer(unique, struct.pack("<II", size, 0))
            elif opcode in (2, 36, 42):  # forget, interrupt, batch of forget: no answer
                pass
            elif opcode in (18, 20, 25, 29):  # release, fsync, flush, releasedir
                self.answer(unique)
            else:
                self.answer(unique, error=errno.ENOSYS)

    def give(self, unique: int, body: bytes):
        _, offset, size = struct.unpack_from("<QQI", body)
        self.answer(unique, bytes(self.data[offset:offset + size]))

    def go_on(self):
        self.hang = False
        while self.held:
            self.give(*self.held.pop())

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


def hang_frozen(rig: Rig, hanging: HangingFile, disk: str, mount: pathlib.Path):
    """Has the disk hang between the catch-up and the reads of a point, and returns the point's answer."""
    for attempt in range(20):
        (mount / "file").write_bytes(os.urandom(100_000))
        with socket.socket(socket.AF_UNIX) as client, client.makefile() as lines:
            client.settimeout(FREEZE_BOUND_S + 10)
            client.connect(str(rig.run_dir / "replicator.sock"))
            client.sendall(json.dumps({"op": "tag", "disk": disk, "name": f"frozen{attempt}"}).encode() + b"\n")
            began = 0.0
            for line in lines:
                message = json.loads(line)
                if message.get("phase") == "freezing":
                    hanging.hang, began = True, time.monotonic()
                if "phase" not in message:
                    break
            if hanging.held:
                return message, time.monotonic() - began
        hanging.go_on()  # the reads were done before
    raise AssertionError("no read was under way during a freeze")


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
    unprotect_hung(rig, hanging, disk, mount)
    hanging.go_on()
    wait_until(lambda: f"{disk}: answered, and was let go" in rig.log("replicator"), 15, "it is let go")
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
            check_unprotect(rig, hanging, disk, mount)
        finally:
            hanging.go_on()
            if os.path.ismount(mount):
                wait_until(lambda: run("umount", mount, check=False).returncode == 0, 30, "it is unmounted")
            if disk:
                run("losetup", "-d", disk, check=False)
            hanging.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
