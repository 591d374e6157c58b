#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs what the documentation tells its readers to type, taken from the pages themselves.

A fence that begins with ```sh is run, in order, line by line until one fails. The word behind sh says where:
the name of a host of the page, several of them, or `background` for lines that go on running. What cannot be run stands in
NOT_RUN with its reason; a fence of shell commands that is neither run nor listed fails the test.
The page's disks are scratch disks of the test: their names are put in for /dev/sda and /dev/sdb.
"""
import dataclasses
import os
import pathlib
import re
import sys

from hosts import Hosts, skip_without_hosts
from rig import ROOT, seeded, wait_until

BUILD = os.environ.get("HERALD_BUILD_DIR", str(ROOT / "build/dev"))
PROGRAMS = r"(sudo|\./\w+|herald\S*|cbtctl|hrl|systemctl|ssh|scp|nft|cmake|apt-get|install|mount|tools/dev/\S+|\$)"

# Page -> the test that runs it. Every other page may have no shell fence but those of NOT_RUN.
RUN_BY = {
    "docs/start/README.md": "docs.py",
    "docs/operating/two_hosts.md": "two_hosts.py",
    "docs/operating/restore.md": "two_hosts.py",
}
# Page, first line of the fence -> why it is not run.
NOT_RUN = {
    ("README.md", "sudo ./demo --vm"): "vm_demo runs it",
    ("README.md", "sudo ./demo"): "the test e2e_demo runs it",
    ("README.md", "sudo ./check"): "it is what runs this test",
    ("docs/start/README.md", "sudo ./demo"): "the test e2e_demo runs it",
    **{("docs/operating/driver.md", line): "no host of the tests has the driver; tests/vm/driver_site.py does it, in a machine" for line in (
        "cbtctl format-meta /dev/vg/data_meta --disk /dev/vg/data", "cbtctl stats /dev/vg/data",
        "cbtctl tag --disks /dev/vg/data,/dev/vg/log", "cbtctl unprotect /dev/vg/data")},
    ("docs/operating/driver.md", "apt-get install linux-headers-$(uname -r) make gcc dmsetup dkms"):
        "the hosts of the tests have another kernel; tests/vm/module.py builds for several",
    ("docs/operating/restore.md", "herald restore /dev/mapper/vg-data --time '2026-11-23 14:05:06' --to data.img"):
        "the hosts of two_hosts.py have no driver; tests/vm/driver_site.py restores at boundaries",
    ("docs/operating/two_hosts.md", "tools/dev/install"): "./check does both; here it would take minutes",
}


@dataclasses.dataclass
class Fence:
    page: str
    line: int
    language: str
    words: list[str]
    text: str

    @property
    def key(self):
        return self.page, self.text.split("\n")[0]

    def __str__(self):
        return f"{self.page}:{self.line}"


def fences(page: str) -> list[Fence]:
    found, opened, body = [], None, []
    for number, line in enumerate((ROOT / page).read_text().split("\n"), 1):
        if opened is None and line.lstrip().startswith("```"):
            language, *words = line.strip()[3:].split() or [""]
            opened, body = Fence(page, number, language, words, ""), []
        elif opened is not None and line.strip() == "```":
            opened.text = "\n".join(body)
            found.append(opened)
            opened = None
        elif opened is not None:
            body.append(line.strip())
    if opened is not None:
        raise AssertionError(f"{opened}: a fence without an end")
    return found


def check_coverage() -> int:
    """Every shell fence of every page is run or listed, and what is listed is there."""
    pages = [str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md")] + ["README.md"]
    wrong, seen, count = [], set(), 0
    for page in sorted(pages):
        for fence in fences(page):
            if fence.language == "":
                if any(re.match(PROGRAMS + r"(\s|$)", line) for line in fence.text.split("\n")):
                    wrong.append(f"{fence}: looks like shell commands, but does not begin with ```sh")
            elif fence.language in ("bash", "shell", "console"):
                wrong.append(f"{fence}: shell commands begin with ```sh here")
            elif fence.language == "sh":
                count += 1
                seen.add(fence.key)
                if fence.key not in NOT_RUN and page not in RUN_BY:
                    wrong.append(f"{fence}: is neither run nor listed in tests/e2e/docs.py")
    wrong += [f"tests/e2e/docs.py lists '{line}' of {page}, which is not there" for page, line in NOT_RUN if (page, line) not in seen]
    for line in wrong:
        print(line)
    print(f"{count} shell fences: {count - len(NOT_RUN)} to run, {len(NOT_RUN)} listed", flush=True)
    return len(wrong)


def run_page(page: str, hosts: Hosts, here: str, disks: dict[str, str], started=None) -> str:
    """Runs the page's fences; `here` is where one is run that names no host. Returns all they printed."""
    printed = []
    for fence in fences(page):
        if fence.language != "sh" or fence.key in NOT_RUN:
            continue
        text = fence.text.replace("build/release", BUILD)
        for name, disk in disks.items():
            text = text.replace(name, disk)
        if fence.words == ["background"]:
            for line in filter(None, text.split("\n")):
                hosts[here].spawn(line)
            if started:
                started()
            print(f"{fence}: running in the background", flush=True)
            continue
        for host in fence.words or [here]:
            done = hosts[host].run(text, check=False)
            if done.returncode != 0:
                hosts.failed = True
                raise AssertionError(f"{fence} on {host}: status {done.returncode}\n{text}\n{done.stdout}{done.stderr}")
            printed.append(done.stdout)
            print(f"{fence} on {host}: ok", flush=True)
            if os.environ.get("HERALD_SHOW"):
                print(text, done.stdout, done.stderr, sep="\n")
    return "\n".join(printed)


def main() -> int:
    if check_coverage():
        return 1
    skip_without_hosts()
    random = seeded()
    with Hosts({"here": "192.0.2.10"}, seed=random.getrandbits(32)) as hosts:
        here, disk = hosts["here"], hosts.add_disk(256)
        here.run(f"mkfs.ext4 -q {disk}; mkdir /data; mount {disk} /data; echo kept >/data/a-file-of-the-reader")
        printed = run_page("docs/start/README.md", hosts, "here", {"/dev/sdb": disk}, lambda: wait_until(
            lambda: here.run("cbtctl list && herald status", check=False).returncode == 0, 30, "both daemons answer"))
        assert "a-file-of-the-reader" in printed, "the restored image does not show what was on the disk:\n" + printed
        here.run("umount /data")
    return 0


if __name__ == "__main__":
    sys.exit(main())
