#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""./demo ends with 130 at a Ctrl-C at any moment, and leaves no process, mount, loop device or directory."""
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time

from rig import BIN, ROOT, run, scaled, seeded, skip_unless_possible

HEADINGS = [f"{number}. " for number in range(1, 7)]


def left_behind(folder: str) -> list[str]:
    found = [f"directory entry {name}" for name in os.listdir(folder)]
    found += [f"mount {line.split()[4]}" for line in open("/proc/self/mountinfo") if folder in line]
    found += [f"loop device: {line}" for line in run("losetup", "--list", "--noheadings").stdout.splitlines() if folder in line]
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if folder in (process / "cmdline").read_text() + " ".join(os.readlink(f) for f in (process / "fd").iterdir()):
                found.append(f"process {(process / 'cmdline').read_text()}")
        except OSError:
            pass  # it has ended meanwhile
    return found


def interrupted(heading: str | None, delay: float, whole_group: bool) -> bool:
    """One demo, interrupted `delay` seconds after its line that begins with `heading`, or after its start. False: it was
    over by then."""
    with tempfile.TemporaryDirectory(prefix="herald-interrupted-") as folder:
        demo = subprocess.Popen([ROOT / "demo", "--size", "128M"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                env={**os.environ, "HERALD_BIN_DIR": str(BIN), "TMPDIR": folder}, start_new_session=True)
        said: list[str] = []
        seen = threading.Event()

        def read():
            for line in demo.stdout:
                said.append(line)
                if heading and line.startswith(heading):
                    seen.set()
            seen.set()

        reader = threading.Thread(target=read)
        reader.start()
        if heading:
            seen.wait(200)
        time.sleep(delay)
        # A terminal's Ctrl-C goes to the foreground process group; kill(1) to one process.
        over = demo.poll() is not None
        if not over:
            (os.killpg if whole_group else os.kill)(demo.pid, signal.SIGINT)
        status = demo.wait(timeout=120)
        reader.join(timeout=60)
        # On a host so busy that the disk cannot be hashed within the deadline it ends at once, and says so.
        refused = over and status == 1 and "too long within the freeze deadline" in "".join(said)
        wanted = 1 if refused else 0 if over else 130
        left = left_behind(folder)
        if status != wanted or left:
            sys.exit(f"interrupted {delay:.2f} s after '{heading}': status {status}, not {wanted}; left behind: {left}\n" + "".join(said))
        print(f"{'over already' if over else 'interrupted'} {delay:.2f} s after '{heading or 'the start'}': status {status}, nothing left",
              flush=True)
        return not over


def main() -> int:
    skip_unless_possible()
    random = seeded()
    rounds = scaled(2, 3, 60)
    count = 0
    # A few more rounds where the last step was over too soon.
    for number in range(rounds + 4):
        if number >= rounds and count > 0:
            break
        count += interrupted(random.choice([None, *HEADINGS]), random.uniform(0, 4), random.random() < 0.7)
    if count == 0:
        print("no demo was interrupted: each was over already")
    return 0 if count > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
