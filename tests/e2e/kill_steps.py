#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""SIGKILL at every named durable step of replicator and server: every point taken afterwards is exact,
and what is read again stays within the blocks that were dirty (promises acked_is_kept,
dirty_or_delivered, no_full_resync)."""
import re
import sys
import time

from rig import BIN, ROOT, Rig, Writer, scaled, seeded, skip_unless_possible, wait_until


def crash_points(*folders: str) -> list:
    names = set()
    for folder in folders:
        for file in (ROOT / folder).rglob("*.cpp"):
            names |= set(re.findall(r'crash_point\("([a-z0-9._-]+)"\)', file.read_text()))
    return sorted(names)


def kill_replicator_at(rig, name: str, hit: int, number: int, rng) -> str:
    rig.kill("replicator")
    rig.start_replicator(env={"HERALD_CRASH_AT": f"{name}:{hit}"}, wait=False)
    died = False
    with Writer(rig.mount, rig.logs / "workload.log", rng.getrandbits(32)):
        ends = time.monotonic() + 12
        while time.monotonic() < ends and not died:
            # A point is what reaches the steps of a freeze.
            if rig.alive("replicator"):
                rig.cbtctl("tag", rig.loop, "--name", f"try-{number}", check=False)
            died = not rig.alive("replicator")
            time.sleep(0.1)
    if not died:
        return "not reached"
    rig.wait_dead("replicator")
    rig.start_replicator()
    rig.wait_synced(60)
    return "killed"


def kill_server_at(rig, name: str, hit: int, rng) -> str:
    rig.kill("server")
    rig._spawn("server", BIN / "herald-process-server", "--config", rig.server_toml, env={"HERALD_CRASH_AT": f"{name}:{hit}"})
    with Writer(rig.mount, rig.logs / "workload.log", rng.getrandbits(32)):
        try:
            wait_until(lambda: not rig.alive("server"), 12, "the server reached the step")
        except TimeoutError:
            return "not reached"
    rig.wait_dead("server")
    rig.start_server()
    rig.wait_synced(60)
    return "killed"


def main() -> int:
    skip_unless_possible()
    rng = seeded()
    hits = scaled([1], [1, 2, 5], [1, 2, 3, 5, 8, 13])
    replicator_steps, server_steps = crash_points("user/replicator"), crash_points("user/process_server", "user/vault", "user/store")
    if not replicator_steps or not server_steps:
        print("no crash points were found in the sources")
        return 1
    reached = {}
    with Rig(size_mib=192) as rig:
        rig.start()
        rig.protect()
        number = 0
        for side, steps in (("replicator", replicator_steps), ("server", server_steps)):
            for step in steps:
                for hit in hits:
                    number += 1
                    outcome = (kill_replicator_at(rig, step, hit, number, rng) if side == "replicator"
                               else kill_server_at(rig, step, hit, rng))
                    point = rig.tag(f"p{number}")
                    rig.check_point(point)
                    status = rig.status()
                    read_again = status["read_bytes"]
                    reached[step] = reached.get(step) or outcome == "killed"
                    print(f"{step}:{hit}: {outcome}; point exact; {read_again >> 20} MiB read since the start", flush=True)
                    if outcome == "killed" and side == "replicator" and read_again > rig.dirty_limit_bytes():
                        rig.failed = True
                        raise AssertionError(f"{step}: {read_again} bytes read again, more than was dirty")
    never = sorted(step for step, hit in reached.items() if not hit)
    if never:
        print("these steps were never reached, so they were not tested:", ", ".join(never))
        return 1
    print(f"{number} kills at {len(reached)} steps, every point exact")
    return 0


if __name__ == "__main__":
    sys.exit(main())
