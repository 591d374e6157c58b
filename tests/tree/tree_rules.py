#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What every file of the tree keeps to: SPDX line with the licence of its folder, ASCII source, no work left open, a README per folder; and that
the target that a user builds has all that is installed."""
import pathlib
import re
import subprocess
import sys

SOURCE = {".h", ".hpp", ".c", ".cpp", ".py", ".cmake", ".sh", ".map", ".in", ".service", ".1", ".8"}
OPEN_WORK = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
README_LINES_MAX = 20


# Which licence the sources below a folder have; the longest folder that fits. What the kernel compiles and a program links
# must allow both: GPL-2.0-only and Apache-2.0 code may not be one program.
BOTH = "GPL-2.0-only OR Apache-2.0"
LICENCES = {"": "Apache-2.0", "kernel": "GPL-2.0-only", "kernel/core": BOTH, "include/herald/limits.h": BOTH,
            "include/herald/abi": "(GPL-2.0-only WITH Linux-syscall-note) OR MIT", "tests/vm/faulty_module": "GPL-2.0-only"}
# How a folder of the kernel is built in user space is no part of it.
BUILDS = {"kernel/CMakeLists.txt", "kernel/ebpf_tracker/CMakeLists.txt"}


def wrong_licence(root: pathlib.Path, name: str, line: str) -> str:
    """What is wrong with an SPDX line, or nothing."""
    said = line.replace("*/", "").partition("SPDX-License-Identifier:")[2].strip()
    folder = max((f for f in LICENCES if not f or name == f or name.startswith(f + "/")), key=len)
    wanted = "Apache-2.0" if name in BUILDS else LICENCES[folder]
    if said != wanted:
        return f"{name}: its licence is '{said}', here it is '{wanted}'"
    for one in re.findall(r"[A-Za-z][\w.-]+", said):
        if one not in ("OR", "WITH", "AND") and not (root / "LICENSES" / f"{one}.txt").is_file():
            return f"{name}: LICENSES has no {one}.txt"
    return ""


def main() -> int:
    root = pathlib.Path(__file__).resolve().parents[2]
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=root, capture_output=True, text=True, check=True).stdout.split("\n")
    names = [n for n in listed if n and (root / n).is_file()]
    wrong = []
    for name in names:
        path = root / name
        script = path.read_bytes()[:2] == b"#!"
        if path.suffix not in SOURCE and path.name != "CMakeLists.txt" and not script:
            continue
        data = path.read_bytes()
        head = data[:400].decode("ascii", "replace")
        if "SPDX-License-Identifier:" not in head:
            wrong.append(f"{name}: no SPDX line at the top")
        else:
            line = next(text for text in head.split("\n") if "SPDX-License-Identifier:" in text)
            if problem := wrong_licence(root, name, line):
                wrong.append(problem)
        if any(byte > 126 for byte in data):
            wrong.append(f"{name}: a byte that is not ASCII")
        for number, line in enumerate(data.decode("ascii", "replace").split("\n"), 1):
            if OPEN_WORK.search(line):
                wrong.append(f"{name}:{number}: work left open: {line.strip()[:80]}")
    for folder in sorted({str(pathlib.PurePath(n).parent) for n in names
                          if n.startswith(("user/", "kernel/", "tools/"))}):
        if folder.count("/") != 1:
            continue
        readme = root / folder / "README.md"
        if not readme.exists():
            wrong.append(f"{folder}: no README.md")
        elif len(readme.read_text().splitlines()) > README_LINES_MAX:
            wrong.append(f"{folder}/README.md: more than {README_LINES_MAX} lines")
    text = (root / "CMakeLists.txt").read_text()
    built = set(re.search(r"add_custom_target\(programs DEPENDS ([^)]*)\)", text)[1].split())
    installed = {name for names in re.findall(r"install\(TARGETS (.*?)\s+DESTINATION", text, re.S) for name in names.split()}
    for name in sorted(installed - built):
        wrong.append(f"CMakeLists.txt: {name} is installed, but the target 'programs' does not build it")
    print(f"{len(names)} files checked, {len(wrong)} wrong")
    for line in wrong:
        print(line)
    return 1 if wrong or not names else 0


if __name__ == "__main__":
    sys.exit(main())
