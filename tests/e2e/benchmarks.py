#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Each benchmark of tests/bench ends well with --quick and writes the JSON that it is asked for. Figures are not
looked at: this is another build than theirs, on a host that does other things meanwhile."""
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

from rig import BIN, ROOT, skip_unless_possible

BENCH = ROOT / "tests/bench"
NOT_RUN = {"cbt_cost": "it boots a machine under emulation and counts instructions, for many minutes"}


def commands() -> dict[str, list]:
    found = {path.name.removeprefix("bench_"): [path] for path in BIN.glob("bench_*")}
    found |= {path.stem: [sys.executable, path] for path in BENCH.glob("*.py")}
    return found


def has_figure(value) -> bool:
    if isinstance(value, dict):
        return any(map(has_figure, value.values()))
    if isinstance(value, list):
        return any(map(has_figure, value))
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def problem_of(command: list) -> str:
    with tempfile.TemporaryDirectory(prefix="herald-bench-test-") as folder:
        file = pathlib.Path(folder) / "figures.json"
        done = subprocess.run([*map(str, command), "--quick", "--json", str(file)], cwd=ROOT, timeout=600,
                              env={**os.environ, "HERALD_BIN_DIR": str(BIN), "TMPDIR": folder})
        if done.returncode != 0:
            return f"ended with status {done.returncode}"
        try:
            return "" if has_figure(json.loads(file.read_text())) else "wrote no figure"
        except (OSError, ValueError) as error:
            return f"wrote no JSON: {error}"


def main() -> int:
    skip_unless_possible()
    named = set(re.findall(r"^\| `(\w+)` \|", (BENCH / "README.md").read_text(), re.M))
    found = commands()
    wrong = [f"{name}: in only one of tests/bench/README.md and the build" for name in sorted(named ^ set(found))]
    for name in sorted(set(found) - set(NOT_RUN)):
        print(f"== {name}", flush=True)
        problem = problem_of(found[name])
        if problem:
            wrong.append(f"{name}: {problem}")
    print("\n".join(wrong) if wrong else "all ended well")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
