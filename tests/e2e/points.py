#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Points on every file system and on a disk with several; the guardian thaws when the daemon is killed
while frozen; an overlong hold thaws and the point is refused; an untouched disk needs no freeze."""
import os
import pathlib
import signal
import subprocess
import sys
import time

from rig import BIN, Rig, Writer, seeded, skip_unless_possible, wait_until


def writes_within(path, seconds: float) -> bool:
    """Whether a write to the file system of `path` ends within `seconds` (in a child: it may hang)."""
    child = subprocess.Popen(["dd", "if=/dev/zero", f"of={path}", "bs=4k", "count=1", "conv=fsync", "status=none"])
    try:
        child.wait(timeout=seconds)
        return child.returncode == 0
    except subprocess.TimeoutExpired:
        return False


def each_filesystem(rng):
    for filesystem in ("ext4", "xfs", "btrfs"):
        with Rig(size_mib=320, filesystem=filesystem) as rig:
            rig.start()
            rig.protect()
            points = []
            with Writer(rig.mount, rig.logs / "workload.log", rng.getrandbits(32)):
                for number in range(3):
                    time.sleep(0.7)
                    points.append(rig.tag(f"{filesystem}{number}"))
            for point in points:
                rig.check_point(point)
            print(f"{filesystem}: {len(points)} points exact, frozen "
                  f"{', '.join(str(round(p.frozen_ms)) for p in points)} ms", flush=True)


def several_filesystems(rng):
    with Rig(size_mib=384, partitions=2) as rig:
        rig.start()
        rig.protect()
        with Writer(rig.mounts[0], rig.logs / "a.log", rng.getrandbits(32)), \
                Writer(rig.mounts[1], rig.logs / "b.log", rng.getrandbits(32)):
            time.sleep(1)
            point = rig.tag("both")
        rig.check_point(point)
        print("two file systems on one disk: one point, exact", flush=True)


def discards_after_the_freeze(rng):
    """ext4 goes on discarding what a commit freed when it is frozen already: a point that the client looked
    at during that is refused, the one that is made is exact."""
    with Rig(size_mib=320, mount_options="discard") as rig:
        rig.start()
        limit = pathlib.Path(f"/sys/block/{pathlib.Path(rig.loop).name}/queue/discard_max_bytes")
        before = limit.read_text()
        limit.write_text("4096")  # many small ones take long
        try:
            rig.protect()
            files = [rig.mount / str(i) for i in range(600)]
            for file in files:
                file.write_bytes(rng.randbytes(64 << 10))
            os.sync()
            rig.cbtctl("tag", rig.loop, "--name", "written")
            for file in files:
                file.unlink()
            # Each try lets a busy machine do some more of them.
            rig.check_point(rig.tag("freed", tries_s=120))
            print("discards after the freeze: the point is exact", flush=True)
        finally:
            limit.write_text(str(int(before) // 4096 * 4096))  # it takes whole multiples only


def guardian_thaws():
    with Rig(size_mib=128) as rig:
        rig.start()
        rig.protect()
        holder = subprocess.Popen([BIN / "cbtctl", "--socket", rig.run_dir / "replicator.sock", "tag", rig.loop,
                                   "--name", "held", "--while-frozen", f"touch {rig.work}/frozen; sleep 8"],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: (rig.work / "frozen").exists(), 20, "the hold began")
        if writes_within(rig.mount / "while-frozen", 0.5):
            raise AssertionError("the file system was not frozen during the hold")
        rig.kill("replicator")
        began = time.monotonic()
        if not writes_within(rig.mount / "after-kill", 5):
            raise AssertionError("the guardian did not thaw after the daemon was killed")
        print(f"daemon killed while frozen: thawed, a write ended {time.monotonic() - began:.2f} s later", flush=True)
        holder.wait(timeout=30)
        rig.start_replicator()
        rig.check_point(rig.tag("after"))
        if any(p["name"] == "held" for p in rig.points()):
            raise AssertionError("the interrupted point was recorded")


def deadline_refuses():
    with Rig(size_mib=128) as rig:
        rig.start()
        rig.protect()
        done = rig.cbtctl("tag", rig.loop, "--name", "late", "--while-frozen", "sleep 14", check=False)
        if done.returncode == 0:
            raise AssertionError("a point held beyond the deadline was accepted")
        print("hold beyond the deadline refused:", (done.stderr or done.stdout).strip().splitlines()[-1], flush=True)
        if not writes_within(rig.mount / "after-deadline", 3):
            raise AssertionError("still frozen after the deadline")
        rig.check_point(rig.tag("after"))
        if any(p["name"] == "late" for p in rig.points()):
            raise AssertionError("the late point was recorded")
        # Without its guardian nothing is frozen at all.
        rig.kill("guardian", signal.SIGKILL)
        os.unlink(rig.run_dir / "guardian.sock")
        done = rig.cbtctl("tag", rig.loop, "--name", "unguarded", check=False)
        if done.returncode == 0 or "guardian" not in done.stderr + done.stdout:
            raise AssertionError(f"a point without a guardian: {done.stdout}{done.stderr}")
        print("no guardian: refused by name", flush=True)


def no_filesystem():
    with Rig(size_mib=96, mounted=False) as rig:
        rig.start()
        with open(rig.loop, "r+b", buffering=0) as disk:
            disk.seek(5 << 20)
            disk.write(os.urandom(3 << 20))
            os.fsync(disk.fileno())
        rig.protect()
        rig.check_point(rig.tag("raw"))
        print("a disk with no file system: exact", flush=True)


def main() -> int:
    skip_unless_possible()
    rng = seeded()
    each_filesystem(rng)
    several_filesystems(rng)
    discards_after_the_freeze(rng)
    guardian_thaws()
    deadline_refuses()
    no_filesystem()
    return 0


if __name__ == "__main__":
    sys.exit(main())
