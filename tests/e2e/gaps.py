#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A tracker gap is named and leads to a digest compare, never to silence and never to a full copy:
pins removed, disk detached and written meanwhile."""
import os
import sys

from rig import Rig, own_loop, run, seeded, skip_unless_possible


def expect_gap(rig, words: str, number: int):
    """The replicator has just been started: it must have found a gap, and only differing blocks travel."""
    rig.wait_synced(120)
    status = rig.status()
    said = rig.log("replicator")
    if words not in said and words not in str(status):
        rig.failed = True
        raise AssertionError(f"nothing in log or status says '{words}'")
    point = rig.tag(f"gap{number}")
    rig.check_point(point)
    sent = rig.status()["sent_bytes"]
    print(f"gap '{words}': named; digest compare; {sent >> 10} KiB sent; point exact", flush=True)
    if sent > 64 << 20:
        raise AssertionError(f"{sent} bytes were sent: more than what differs")


def write_some(path, size=1 << 20):
    with open(path, "wb") as file:
        file.write(os.urandom(size))
        os.fsync(file.fileno())


def main() -> int:
    skip_unless_possible()
    seeded()
    with own_loop() as loop, Rig(size_mib=256, loop=loop) as rig:
        rig.start()
        rig.protect()
        # Enough incompressible data that a full copy would show.
        for number in range(100):
            write_some(rig.mount / f"base{number}")
        rig.check_point(rig.tag("base"))

        # 1. The pinned programs are lost, as by a restart of the machine; writes follow unseen.
        rig.kill("replicator")
        run("umount", rig.run_dir / "bpf")
        write_some(rig.mount / "unseen1")
        rig.start_replicator()
        expect_gap(rig, "pinned programs and maps were removed", 1)

        # 2. The disk is detached, changed while nobody looks, and attached again.
        rig.kill("replicator")
        rig.unmount()
        rig.detach()
        with open(rig.source, "r+b") as file:
            file.seek(200 << 20)
            file.write(os.urandom(1 << 20))
        rig.attach()
        run("mount", rig.loop, rig.mount)
        rig.start_replicator()
        expect_gap(rig, "detached and attached again", 2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
