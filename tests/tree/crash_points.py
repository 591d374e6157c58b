#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every crash point in the code is one at which a kill test kills, and no test waits for one that is gone.

A name is a literal "folder.step". Most are passed on as arguments, so that all literals of that form count whose
first word is that of a crash point, but for those of NO_POINTS.
"""
import pathlib
import re
import sys

# Test -> what dies there. In ordered_stream_test.cpp it is the replicator's core over the driver in user space: no
# host of the tests has the driver.
KILLERS = {
    "tests/e2e/replicator/kills_test.cpp": "the replicator's process",
    "tests/unit/replicator/ordered_stream_test.cpp": "a replicator's core",
    "tests/crash/process_server_test.cpp": "the server in a child process",
    "tests/vm/driver_site.py": "cbtctl in a machine with the driver",
}
# Files' names and a key of the configuration.
NO_POINTS = {"replicator.sock", "replicator.toml", "replicator.io_engine", "catalog.sqlite"}
POINT = re.compile(r'\b(?:crash_point|at_step_?)\(\s*"([a-z_]+)\.[a-z_]+"')
COMMENT = re.compile(r"//[^\n]*|^\s*#[^\n]*", re.M)


def code_of(path: pathlib.Path) -> str:
    return COMMENT.sub("", path.read_text())


def main() -> int:
    root = pathlib.Path(__file__).resolve().parents[2]
    texts = {file: code_of(file) for top in ("user", "tools") for file in sorted((root / top).rglob("*.[ch]*"))
             if file.suffix in (".h", ".c", ".cpp")}
    words = {word for text in texts.values() for word in POINT.findall(text)}
    literal = re.compile(r'"((?:%s)\.[a-z_]+)"' % "|".join(sorted(words)))
    points = {name: file.relative_to(root).as_posix() for file, text in texts.items() for name in literal.findall(text)
              if name not in NO_POINTS}
    killed: dict[str, str] = {}
    for test in KILLERS:
        found = literal.findall(code_of(root / test))
        killed |= {name: test for name in found if name not in NO_POINTS}
        if not found:
            killed[f"(none in {test})"] = test
    wrong = [f"{file}: no kill test kills at {name}" for name, file in sorted(points.items()) if name not in killed]
    wrong += [f"{test}: {name} is no crash point" for name, test in sorted(killed.items()) if name not in points]
    print(f"{len(points)} crash points, {len(wrong)} wrong")
    for line in wrong:
        print(line)
    return 1 if wrong or not points else 0


if __name__ == "__main__":
    sys.exit(main())
