#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""docs/promises.md and the tests: every test, file and quoted case that the page names exists, a case in the
test that it is quoted of; every promise names a test or says that it is not reached; no benchmark is a proof."""
import json
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEST = re.compile(r"(?:unit|sim|e2e|vm|crash|tree|differential)_\w+")
WORDS = {"paused"}  # of the product, in backticks among the proofs
CASE = re.compile(r'TEST_CASE(?:_METHOD)?\(\s*(?:\w+,\s*)?((?:"(?:[^"\\]|\\.)*"\s*)+)')
PROMISES = 13


def registered(build: str) -> tuple[set[str], set[str]]:
    """Names and labels of CTest's tests."""
    shown = subprocess.run(["ctest", "--test-dir", build, "--show-only=json-v1"], capture_output=True, text=True, check=True)
    tests = json.loads(shown.stdout)["tests"]
    labels = {label for test in tests for property in test.get("properties", []) if property["name"] == "LABELS"
              for label in property["value"]}
    # Also what ./check leaves out, and the fuzzers, which are of another build.
    left_out = pathlib.Path(build, "tests_left_out").read_text().split(";")
    return {test["name"] for test in tests} | set(filter(None, left_out)), labels | {"fuzz"}


def sources() -> dict[str, list[pathlib.Path]]:
    """Of each herald_test in the tree its source files; of scripts none."""
    found = {}
    for lists in (ROOT / "tests").rglob("CMakeLists.txt"):
        text = re.sub(r"#.*", "", lists.read_text())
        for name, arguments in re.findall(r"herald_test\((\w+)\s([^)]*)\)", text):
            files = re.findall(r"[\w/]+\.cpp", arguments)
            found[name] = [lists.parent / file for file in files if (lists.parent / file).exists()]
            # A suite that several stores share is a header or a folder beside.
            found[name] += sorted((ROOT / "tests/conformance").rglob("*.*"))
    return found


def cases_of(files: list[pathlib.Path]) -> list[str]:
    cases = []
    for file in files:
        for literals in CASE.findall(file.read_text(errors="replace")):
            cases.append("".join(re.findall(r'"((?:[^"\\]|\\.)*)"', literals)).replace('\\"', '"'))
    return cases


def check(page: str, names: set[str], labels: set[str], files: dict[str, list[pathlib.Path]]) -> list[str]:
    wrong = []

    def known(name: str) -> bool:
        # The tests of a program that runs file by file have its name and the file's.
        return name in names or name in labels or any(other.startswith(name + "_") for other in names)

    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| (.*?) \| (.*) \|$", page, re.M)
    if [int(row[0]) for row in rows] != list(range(1, PROMISES + 1)):
        wrong.append(f"the promises are not numbered 1 to {PROMISES}")
    for number, name, _, proof in rows:
        tests = [word for word in re.findall(r"`([^`]+)`", proof) if known(word)]
        if not tests and not proof.startswith("not reached"):
            wrong.append(f"promise {number}, {name}: no test, and no word that it is not reached")
        for word in re.findall(r"`([^`]+)`", proof):
            is_file = (ROOT / word).is_file() or any((ROOT / "tests").rglob(word + ".cpp"))
            if not known(word) and not is_file and word not in WORDS:
                wrong.append(f"promise {number}, {name}: there is no test or file {word}")
    for word in sorted(set(re.findall(r"`([^`\n]+)`", page))):
        if TEST.fullmatch(word) and not known(word):
            wrong.append(f"there is no test {word}")
    owner = None
    for test, case in re.findall(r'`([^`\n]+)`|"([^"|]+)"', page):
        if test:
            owner = test if TEST.fullmatch(test) else owner
            continue
        case = " ".join(case.split())
        here = [file for name, listed in files.items() if name == owner for file in listed]
        if not any(case in found for found in cases_of(here)):
            wrong.append(f'{owner} has no case "{case}"')
    return wrong


def main() -> int:
    names, labels = registered(os.environ["HERALD_BUILD_DIR"])
    files = sources()
    page = (ROOT / "docs/promises.md").read_text()
    wrong = check(page, names, labels, files)
    for line in wrong:
        print(f"docs/promises.md: {line}")
    # What the check is for, tried on the page itself: a name and a case that are no more, a proof that is none.
    spoilt = {"e2e_gaps": "e2e_gasp", '"killed at any step of a put"': '"killed at no step of a put"',
              "`e2e_points` (deadline": "`bench sync` (deadline"}
    for old, new in spoilt.items():
        if old not in page or not set(check(page.replace(old, new), names, labels, files)) - set(wrong):
            wrong.append(old)
            print(f"a page with {new} for {old} would not be noticed")
    print(f"{len(names)} tests, {len(page.splitlines())} lines, {len(wrong)} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
