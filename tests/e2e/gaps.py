#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A tracker gap is named and leads to a digest compare, never to silence and never to a full copy:
pins removed, disk detached and written meanwhile, and the two sides at different places of their common history."""
import os
import re
import shutil
import signal
import sys

from rig import BIN, Rig, own_loop, run, seeded, skip_unless_possible, wait_until


def expect_gap(rig, words: str, number: int):
    """The replicator must find a gap, once, and only differing blocks travel."""
    wait_until(lambda: re.search(f": compare: .*{words}", rig.log("replicator")[rig.read:]), 60,
               f"the log names the gap '{words}'")
    rig.read = len(rig.log("replicator"))
    rig.wait_synced(120)
    point = rig.tag(f"gap{number}")
    rig.check_point(point)
    sent = rig.status()["sent_bytes"]
    print(f"gap '{words}': named; digest compare; {sent >> 10} KiB sent; point exact", flush=True)
    if sent > 64 << 20:
        raise AssertionError(f"{sent} bytes were sent: more than what differs")


def stop_server(rig, keep: str):
    """What it has by then is kept as a copy; the replicator runs on."""
    rig.kill("server", signal.SIGTERM)
    shutil.copytree(rig.work / "vault", rig.work / keep)
    for path in (rig.work / "state").glob("catalog.sqlite*"):
        shutil.copy2(path, rig.work / keep)


def put_back(rig, kept: str):
    """A copy of the server's store and catalog, in place of what there is."""
    shutil.rmtree(rig.work / "vault")
    shutil.copytree(rig.work / kept, rig.work / "vault")
    for path in (rig.work / "state").glob("catalog.sqlite*"):
        path.unlink()
    for path in (rig.work / "vault").glob("catalog.sqlite*"):
        shutil.move(path, rig.work / "state")


def write_some(path, size=1 << 20):
    with open(path, "wb") as file:
        file.write(os.urandom(size))
        os.fsync(file.fileno())


def main() -> int:
    skip_unless_possible()
    seeded()
    with own_loop() as loop, Rig(size_mib=256, loop=loop) as rig:
        rig.read = 0  # of the replicator's log
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

        # 3. The server goes back to a copy of its store and catalog, as nobody should: it knows the session, but lost
        # what it had acknowledged.
        stop_server(rig, "early")
        rig.start_server()
        write_some(rig.mount / "seen3")
        newer = rig.tag("newer")
        stop_server(rig, "late")
        put_back(rig, "early")
        rig.start_server()
        write_some(rig.mount / "unseen3")
        expect_gap(rig, "the server lost positions that it had acknowledged", 3)
        if newer.id in [point["id"] for point in rig.points()]:
            raise AssertionError("the earlier copy knows a later point")

        # 4. The other way round: to the later copy this machine looks like one that was reverted to a snapshot. The
        # newest session there is another than the machine's last.
        stop_server(rig, "branch")
        put_back(rig, "late")
        rig.start_server()
        write_some(rig.mount / "unseen4")
        expect_gap(rig, "the server's last session was not ours", 4)
        rig.check_point(newer)

        # 5. A catalog from a backup, adopted as it should be: no epoch of before writes any more.
        stop_server(rig, "last")
        put_back(rig, "early")
        run(BIN / "herald-process-server", "--config", rig.server_toml, "--restored-catalog")
        rig.start_server()
        write_some(rig.mount / "unseen5")
        expect_gap(rig, "the server's last session was not ours", 5)
    return 0


if __name__ == "__main__":
    sys.exit(main())
