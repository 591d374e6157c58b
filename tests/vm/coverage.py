# SPDX-License-Identifier: Apache-2.0
"""Which lines of a module ran, in a machine whose kernel counts them (debug_kernel.py: CONFIG_GCOV_KERNEL).

    file = module.build(kernel, module.DRIVER, *coverage.WORDS)
    coverage.reset(machine)
    ...
    found = coverage.of(machine, file, "calls.c")    # line -> times

Promise: the counts are of all processors since reset(). Failure: GuestFailed; CoverageFailed, when
what was compiled and what ran do not belong together.
"""
import base64
import json
import pathlib
import shutil
import subprocess
import tempfile

import toolchain
from machine import Machine

WORDS = ("GCOV_PROFILE=y",)


class CoverageFailed(AssertionError):
    pass


def reset(machine: Machine) -> None:
    machine.run("test -e /sys/kernel/debug/gcov || mount -t debugfs debugfs /sys/kernel/debug")
    machine.run("echo 1 >/sys/kernel/debug/gcov/reset")


def of(machine: Machine, built: pathlib.Path, source: str) -> dict[int, int]:
    stem = pathlib.Path(source).stem
    counts = machine.run(f"base64 -w0 $(find /sys/kernel/debug/gcov -name {stem}.gcda)")
    with tempfile.TemporaryDirectory(prefix="herald-coverage-") as work:
        shutil.copy(built.parent / f"{stem}.gcno", work)
        (pathlib.Path(work) / f"{stem}.gcda").write_bytes(base64.b64decode(counts))
        program = toolchain.HOST_COMPILER.replace("gcc", "gcov")
        done = subprocess.run([program, "--json-format", "--stdout", f"{stem}.gcda"], cwd=work, capture_output=True, text=True)
    if done.returncode != 0 or "stamp mismatch" in done.stderr:
        raise CoverageFailed(f"{source}: {done.stderr}")
    lines: dict[int, int] = {}
    for file in json.loads(done.stdout)["files"]:
        if pathlib.Path(file["file"]).name == source:
            for line in file["lines"]:
                # One line may be in several functions, inlined ones too.
                lines[line["line_number"]] = max(lines.get(line["line_number"], 0), line["count"])
    if not lines:
        raise CoverageFailed(f"{source}: no lines in {done.stdout[:2000]}")
    return lines


def report(found: dict[str, dict[int, int]]) -> float:
    """Prints what did not run; the share of lines that did, of all together."""
    for source, lines in found.items():
        missed = [number for number, count in sorted(lines.items()) if not count]
        ran = len(lines) - len(missed)
        print(f"{source}: {ran} of {len(lines)} lines ran ({100 * ran / len(lines):.1f} %)"
              + (f"; not {', '.join(map(str, missed))}" if missed else ""), flush=True)
    every = [count for lines in found.values() for count in lines.values()]
    return sum(count > 0 for count in every) / len(every)
