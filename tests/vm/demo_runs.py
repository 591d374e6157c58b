#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""./demo --vm to its end, with --keep, interrupted, and where something that it needs is missing: its status, what it
says, and that nothing is left behind."""
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

from machine import BIN, BUILD, ROOT, SKIPPED, skip_unless_possible

sys.path.insert(0, str(ROOT / "tests/e2e"))
from demo_interrupts import left_behind  # noqa: E402


def environment(folder: str, **more: str) -> dict[str, str]:
    return {**os.environ, "HERALD_BIN_DIR": str(BIN), "HERALD_BUILD_DIR": str(BUILD), "TMPDIR": folder, **more}


def expect(holds: bool, what: str) -> None:
    if not holds:
        sys.exit(f"demo --vm: {what}")


def demo(folder: str, *options: str, **more: str) -> subprocess.CompletedProcess:
    done = subprocess.run([ROOT / "demo", "--vm", *options], capture_output=True, text=True, timeout=1800,
                          env=environment(folder, **more))
    print(done.stdout + done.stderr, flush=True)
    return done


def refuses(folder: str) -> None:
    # The programs of the shell's own script, and no QEMU.
    with tempfile.TemporaryDirectory() as few:
        for name in ("bash", "env", "dirname", "id", "python3"):
            os.symlink(f"/usr/bin/{name}", f"{few}/{name}")
        done = demo(folder, PATH=few)
    expect(done.returncode == 1, f"without QEMU: status {done.returncode}")
    expect("qemu-system-x86" in done.stderr and "tools/dev/install" in done.stderr, "it does not say what is missing")
    expect(not left_behind(folder), f"without QEMU it left {left_behind(folder)}")


def keeps(folder: str) -> None:
    done = demo(folder, "--keep", "--seed", "5")
    expect(done.returncode == 0, f"status {done.returncode}")
    rows = [line for line in done.stdout.splitlines() if line.endswith("  yes")]
    kept = [pathlib.Path(line.removeprefix("kept: ")) for line in done.stdout.splitlines() if line.startswith("kept: ")]
    expect(bool(rows) and f"All {len(rows)} images" in done.stdout, "no table of what was brought back")
    expect(len(kept) == 1 and len(list(kept[0].glob("restored-*.img"))) == len(rows), f"kept {kept}")
    left = [what for what in left_behind(folder) if not what.startswith("directory entry")]
    expect(not left, f"--keep left {left}")


def interrupted(folder: str) -> None:
    began = time.monotonic()
    process = subprocess.Popen([ROOT / "demo", "--vm"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               env=environment(folder), start_new_session=True)
    for line in process.stdout:
        if line.startswith("3. "):
            # As a terminal does it: all of them.
            os.killpg(process.pid, signal.SIGINT)
    status = process.wait(timeout=120)
    expect(status == 130, f"interrupted: status {status}")
    expect(not left_behind(folder), f"interrupted it left {left_behind(folder)}")
    print(f"interrupted: {time.monotonic() - began:.0f} s, nothing left", flush=True)


def main() -> int:
    skip_unless_possible()
    if os.getuid() != 0:
        print("SKIPPED: not root")
        return SKIPPED
    for step in (refuses, keeps, interrupted):
        with tempfile.TemporaryDirectory(prefix="herald-demo-vm-test-") as folder:
            step(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
