#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A full disk at the server: the replicator is slowed, the protected disk never is; nothing acknowledged
is lost, both sides' status say so, and it recovers when space returns."""
import contextlib
import json
import mmap
import os
import subprocess
import sys
import time

from rig import BLOCK_BYTES, Rig, seeded, skip_unless_possible, wait_until

FULL_SECONDS = 20


def server_says(rig) -> tuple[str, str]:
    """The disk's state and the store's, as an operator reads them."""
    return (json.loads(rig.herald("disks", "--json").stdout)["disks"][0]["state"],
            json.loads(rig.herald("status", "--json").stdout)["store_state"])


@contextlib.contextmanager
def direct_file(path):
    """A written file of 8 MiB on the protected disk, open past the page cache."""
    with open(path, "wb") as file:
        file.write(os.urandom(8 << 20))
        os.fsync(file.fileno())
    fd = os.open(path, os.O_WRONLY | os.O_DIRECT)
    try:
        yield fd
    finally:
        os.close(fd)


def slowest_write(fd, random, seconds: float) -> float:
    """Of writes to the disk itself, one after the other."""
    block = mmap.mmap(-1, BLOCK_BYTES)
    slowest = 0.0
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        block[:] = os.urandom(BLOCK_BYTES)
        began = time.monotonic()
        os.pwrite(fd, block, random.randrange((8 << 20) // BLOCK_BYTES) * BLOCK_BYTES)
        slowest = max(slowest, time.monotonic() - began)
        time.sleep(0.02)
    return slowest


def main() -> int:
    skip_unless_possible()
    random = seeded()
    with Rig(size_mib=256, store_tmpfs_mib=64, server_config="[limits]\nfree_bytes_min = 8388608") as rig:
        rig.start()
        rig.protect()
        kept = rig.tag("before")
        if server_says(rig)[0] != "protected":
            raise AssertionError(f"before: {server_says(rig)}")
        with direct_file(rig.mount / "direct") as fd:
            before_s = slowest_write(fd, random, 3)
            # More than the store can take, incompressible; a segment at a time, so that it fills up as far as it may
            # and no further: several on their way at once would take a little more.
            with open(rig.mount / "big", "wb") as file:
                while "full" not in rig.status()["cause"] and file.tell() < 96 << 20:
                    file.write(os.urandom(8 << 20))
                    os.fsync(file.fileno())
                    time.sleep(1)
                wrote = file.tell() >> 20
            status = wait_until(lambda: (lambda s: s if "full" in s["cause"] else None)(rig.status()), 60,
                                "the status says that the server is full")
            print(f"{wrote} MiB written; state '{status['state']}': {status['cause']} -> {status['remedy']}")
            if not status["cause"] or not status["remedy"]:
                raise AssertionError("the state does not name cause and remedy")
            wait_until(lambda: server_says(rig) == ("paused", "full"), 30, "the server's lists say that it is full")
            # The protected disk goes on while the server is full. The limit is far above any write's time on a
            # busy host, and far below what a write would take that waits for the server.
            most_s = max(1.0, 10 * before_s)
            slowest_s = 0.0
            for _ in range(FULL_SECONDS):
                slowest_s = max(slowest_s, slowest_write(fd, random, 1))
                if server_says(rig) != ("paused", "full"):
                    raise AssertionError(f"nothing is taken, and the server says {server_says(rig)}")
            print(f"slowest write {before_s * 1e3:.0f} ms before, {slowest_s * 1e3:.0f} ms in {FULL_SECONDS} s of a full server")
            if slowest_s > most_s:
                raise AssertionError("a write to the protected disk waited for the full server")
        if "full" not in rig.status()["cause"]:
            raise AssertionError(f"it was not full to the end: {rig.status()}")
        rig.check_point(kept)
        subprocess.run(["mount", "-o", "remount,size=400m", rig.work / "vault"], check=True)
        point = rig.tag("after", tries_s=90)
        rig.check_point(point)
        rig.check_point(kept)
        wait_until(lambda: server_says(rig)[0] == "protected", 30, "the server says protected again")
        print("space returned: caught up, both points exact")
    return 0


if __name__ == "__main__":
    sys.exit(main())
