#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""SIGKILL of replicator or server at random instants under load: every point taken afterwards is exact."""
import sys
import time

from rig import Rig, Writer, scaled, seeded, skip_unless_possible


def main() -> int:
    skip_unless_possible()
    rng = seeded()
    kills = scaled(6, 20, 200)
    with Rig(size_mib=192) as rig:
        rig.start()
        rig.protect()
        for number in range(kills):
            victim = rng.choice(["replicator", "replicator", "server"])
            with Writer(rig.mount, rig.logs / "workload.log", rng.getrandbits(32)):
                time.sleep(rng.uniform(0.05, 1.5))
                rig.kill(victim)
                time.sleep(rng.uniform(0, 0.5))
                rig.start_replicator() if victim == "replicator" else rig.start_server()
                time.sleep(rng.uniform(0, 0.5))
                point = rig.tag(f"k{number}")
            rig.check_point(point)
            print(f"kill {number + 1} of {kills}: {victim}, point exact", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
