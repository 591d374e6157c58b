#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A full disk at the server: the replicator is slowed, the protected disk never is; nothing acknowledged
is lost, the status says so, and it recovers when space returns."""
import os
import subprocess
import sys
import time

from rig import Rig, seeded, skip_unless_possible, wait_until


def main() -> int:
    skip_unless_possible()
    seeded()
    with Rig(size_mib=256, store_tmpfs_mib=64, server_config="[limits]\nfree_bytes_min = 8388608") as rig:
        rig.start()
        rig.protect()
        kept = rig.tag("before")
        # More than the store can take, incompressible.
        began = time.monotonic()
        with open(rig.mount / "big", "wb") as file:
            for _ in range(96):
                file.write(os.urandom(1 << 20))
            os.fsync(file.fileno())
        wrote_s = time.monotonic() - began
        status = wait_until(lambda: (lambda s: s if "full" in s["cause"] else None)(rig.status()), 60,
                            "the status says that the server is full")
        print(f"96 MiB written in {wrote_s:.1f} s; state '{status['state']}': {status['cause']} -> {status['remedy']}")
        if not status["cause"] or not status["remedy"]:
            raise AssertionError("the state does not name cause and remedy")
        # The protected disk goes on while the server is full.
        began = time.monotonic()
        with open(rig.mount / "more", "wb") as file:
            file.write(os.urandom(8 << 20))
            os.fsync(file.fileno())
        if time.monotonic() - began > 5:
            raise AssertionError("a write to the protected disk waited for the full server")
        rig.check_point(kept)
        subprocess.run(["mount", "-o", "remount,size=400m", rig.work / "vault"], check=True)
        point = rig.tag("after", tries_s=90)
        rig.check_point(point)
        rig.check_point(kept)
        print("space returned: caught up, both points exact")
    return 0


if __name__ == "__main__":
    sys.exit(main())
