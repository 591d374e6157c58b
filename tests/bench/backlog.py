#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Backlog age (now minus the start of the drain pass before the one last fully received) while a workload
writes 50 MB/s in files of 1 MiB, with a point every 30 s; then under random 4 KiB writes, reported only.
Goals: median at most 2 s; total frozen time at most 2 % of the wall clock."""
import argparse
import json
import os
import pathlib
import random
import statistics
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from rig import Rig, skip_unless_possible  # noqa: E402

RATE_BYTES = 50_000_000


class Load(threading.Thread):
    def __init__(self, root: pathlib.Path, kind: str):
        super().__init__(daemon=True)
        self.root, self.kind, self.ending, self.written = root, kind, False, 0

    def run(self):
        rng = random.Random(7)
        data = rng.randbytes(1 << 20)
        began = time.monotonic()
        number = 0
        if self.kind == "random":
            target = open(self.root / "random", "w+b", buffering=0)
            target.truncate(256 << 20)
        while not self.ending:
            if self.kind == "files":
                with open(self.root / f"f{number % 200}", "wb") as file:
                    file.write(data)
                self.written += len(data)
                ahead = self.written / RATE_BYTES - (time.monotonic() - began)
                if ahead > 0:
                    time.sleep(ahead)
            else:
                os.pwrite(target.fileno(), data[:4096], rng.randrange(65536) * 4096)
                self.written += 4096
                if number % 64 == 0:
                    os.fdatasync(target.fileno())
            number += 1


def measure(rig: Rig, kind: str, seconds: float, point_every: float) -> dict:
    load = Load(rig.mount, kind)
    load.start()
    began = time.monotonic()
    ages, frozen_ms, points = [], 0.0, 0
    next_point = began + point_every
    while time.monotonic() - began < seconds:
        age = rig.status()["backlog_age_s"]
        if age is not None:
            ages.append(age)
        if time.monotonic() >= next_point:
            done = json.loads(rig.cbtctl("tag", rig.loop, "--name", f"{kind}{points}", "--json").stdout)
            frozen_ms += done["point"]["frozen_ms"]
            points += 1
            next_point += point_every
        time.sleep(0.25)
    wall = time.monotonic() - began
    load.ending = True
    load.join()
    return {"median_s": statistics.median(ages), "max_s": max(ages), "samples": len(ages), "points": points,
            "frozen_percent": frozen_ms / 10 / wall, "written_mb_per_s": load.written / 1e6 / wall}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    skip_unless_possible()
    seconds, point_every = (15, 5) if args.quick else (120, 30)
    results = {}
    for kind in ("files", "random"):
        with Rig(size_mib=1024) as rig:
            rig.start()
            rig.protect()
            results[kind] = measure(rig, kind, seconds, point_every)
        r = results[kind]
        print(f"{kind}: {r['written_mb_per_s']:.1f} MB/s written; backlog age median {r['median_s']:.2f} s, "
              f"max {r['max_s']:.2f} s over {r['samples']} samples; {r['points']} points, "
              f"frozen {r['frozen_percent']:.2f} % of the wall clock"
              + (" (goals 2 s, 2 %)" if kind == "files" else " (no goal)"), flush=True)
    if args.json:
        args.json.write_text(json.dumps(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
