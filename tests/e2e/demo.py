#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""./demo to its end: sizes that it refuses, what --keep keeps, and that without it nothing is left."""
import os
import pathlib
import subprocess
import sys
import tempfile

from demo_interrupts import left_behind
from rig import BIN, ROOT, TIER, skip_unless_possible

# --size -> a word of its refusal. Seconds to hash 1T are more than a freeze may last, on any machine.
REFUSED = {"1T": "to hash on this machine, too long within the freeze deadline", "65T": "larger than any disk",
           "127M": "too small", "much": "is not a size"}
KEPT = {"config", "vault", "restored", "state", "log", "hash", "points.json"}
POINTS = 5


def demo(folder: str, *options: str) -> subprocess.CompletedProcess:
    done = subprocess.run([ROOT / "demo", *options], capture_output=True, text=True, timeout=800,
                          env={**os.environ, "HERALD_BIN_DIR": str(BIN), "TMPDIR": folder})
    print(done.stdout + done.stderr, flush=True)
    return done


def expect(holds: bool, what: str) -> None:
    if not holds:
        sys.exit(f"demo: {what}")


def refuses(folder: str) -> None:
    for size, why in REFUSED.items():
        done = demo(folder, "--size", size)
        expect(done.returncode == 1, f"--size {size}: status {done.returncode}, not 1")
        expect(size in done.stderr and why in done.stderr, f"--size {size}: the refusal does not say '{why}'")
        expect(not left_behind(folder), f"--size {size} left {left_behind(folder)}")


def keeps(folder: str) -> None:
    done = demo(folder, "--size", "128M", "--keep")
    expect(done.returncode == 0, f"--keep: status {done.returncode}")
    kept = [pathlib.Path(line.removeprefix("kept: ")) for line in done.stdout.splitlines() if line.startswith("kept: ")]
    expect(len(kept) == 1 and kept[0].parent == pathlib.Path(folder), f"--keep does not say what it kept: {kept}")
    expect({entry.name for entry in kept[0].iterdir()} == KEPT, f"--keep kept {sorted(kept[0].iterdir())}")
    images = list((kept[0] / "restored").glob("*.img"))
    expect(len(images) == POINTS and all(image.stat().st_size == 128 << 20 for image in images), f"kept images: {images}")
    expect(any((kept[0] / "vault").rglob("*.hrl")), "the vault that was kept holds no segment")
    expect((kept[0] / "config/operator/herald.toml").exists(), "no configuration was kept")
    # Of processes, mounts and loop devices nothing is kept.
    left = [what for what in left_behind(folder) if not what.startswith("directory entry")]
    expect(not left, f"--keep left {left}")


def cleans_up(folder: str) -> None:
    done = demo(folder, "--size", "128M")
    expect(done.returncode == 0, f"status {done.returncode}")
    expect(not left_behind(folder), f"left {left_behind(folder)}")


def main() -> int:
    skip_unless_possible()
    # In the smallest tier e2e_demo_interrupts must do for what is left without --keep.
    for step in (refuses, keeps) if TIER == "check" else (refuses, keeps, cleans_up):
        with tempfile.TemporaryDirectory(prefix="herald-demo-test-") as folder:
            step(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
