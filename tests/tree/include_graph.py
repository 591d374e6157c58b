#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Dependencies point one way: every #include, and what each target links, obeys the table below."""
import pathlib
import re
import sys

# folder -> folders it may include from (besides itself and include/)
BASE = {"user/base"}
LEAVES = {"user/seal", "user/hrl", "user/wire", "user/store", "user/tracker", "user/agent"}
ALLOWED = {
    "include": set(),
    "kernel/core": set(),
    "kernel/ebpf_tracker": set(),
    "kernel/linux_cbt": {"kernel/core"},
    "user/base": set(),
    "user/seal": BASE,
    "user/hrl": BASE | {"user/seal"},
    "user/hrl_library": BASE | {"user/seal", "user/hrl"},
    "user/wire": BASE,
    "user/store": BASE,
    "user/tracker": BASE | {"kernel/core", "kernel/ebpf_tracker"},
    "user/agent": BASE,
    "user/vault": BASE | {"user/seal", "user/hrl", "user/wire", "user/store"},
    "user/replicator": BASE | LEAVES,
    "user/process_server": BASE | {"user/seal", "user/hrl", "user/wire", "user/store", "user/vault"},
    "tools/hrl": BASE | {"user/hrl", "user/seal"},
    "tools/cbtctl": BASE | {"user/agent", "user/tracker", "user/wire", "kernel/core"},
    "tools/herald": BASE | {"user/seal", "user/hrl", "user/wire", "user/vault", "user/store"},
}
INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.M)
# In a CMakeLists.txt: what makes a target, and what says that it links others.
TARGET = re.compile(r"\b(?:herald_library|herald_program|add_library|add_executable)\s*\(\s*([\w-]+)([^)]*)\)")
LINK = re.compile(r"\btarget_link_libraries\s*\(\s*([\w-]+)([^)]*)\)")
FLAGS = "herald_flags"  # compiler options, a target like any other to CMake


def folder_of(path: str):
    for folder in ALLOWED:
        if path == folder or path.startswith(folder + "/"):
            return folder
    return None


def links(root: pathlib.Path):
    """Folder of each target, and (folder, CMakeLists.txt, target, what it links)."""
    folders, linked = {}, []
    for top in ("kernel", "user", "tools"):
        for file in sorted((root / top).rglob("CMakeLists.txt")):
            name = file.relative_to(root).as_posix()
            text = re.sub(r"#[^\n]*", "", file.read_text())
            for target, words in TARGET.findall(text):
                folders[target] = folder_of(name)
                linked += [(folder_of(name), name, target, word) for word in words.partition("DEPS")[2].split()]
            for target, words in LINK.findall(text):
                linked += [(folder_of(name), name, target, word) for word in words.split()]
    return folders, linked


def wrong_links(root: pathlib.Path) -> tuple[int, list[str]]:
    wrong, checked = [], 0
    folders, linked = links(root)
    for own, file, target, other in linked:
        if not other.startswith("herald") or other == FLAGS:
            continue  # a library of the system, or a word of CMake's
        checked += 1
        if own is None:
            wrong.append(f"{file}: its folder is not in the table of {__file__}")
        elif other not in folders:
            wrong.append(f"{file}: {target} links {other}, which no folder below kernel, user and tools makes")
        elif folders[other] != own and folders[other] not in ALLOWED[own]:
            wrong.append(f"{file}: {own} may not link {other} of {folders[other]}")
    if checked == 0:
        wrong.append("no DEPS of ours were found")
    return checked, wrong


def main() -> int:
    root = pathlib.Path(__file__).resolve().parents[2]
    wrong = []
    checked = 0
    for top in ("include", "kernel", "user", "tools"):
        for file in sorted((root / top).rglob("*")):
            if file.suffix not in (".h", ".hpp", ".c", ".cpp"):
                continue
            name = file.relative_to(root).as_posix()
            own = folder_of(name)
            if own is None:
                wrong.append(f"{name}: its folder is not in the table of {__file__}")
                continue
            checked += 1
            for included in INCLUDE.findall(file.read_text()):
                if included.startswith("herald/"):
                    continue
                if included.startswith("../"):
                    # As kernel code names what is outside its folder.
                    included = (file.parent / included).resolve().relative_to(root).as_posix()
                target = folder_of(included)
                if target is None:
                    # Generated headers, and private headers beside the file.
                    if (file.parent / included).exists() or included.endswith((".skel.h", "vmlinux.h", "probed.h")):
                        continue
                    wrong.append(f"{name}: includes {included}, which is in no known folder")
                elif target not in (own, "include") and target not in ALLOWED[own]:
                    wrong.append(f"{name}: {own} may not include {included}")
    linked, more = wrong_links(root)
    wrong += more
    print(f"{checked} files and {linked} links checked, {len(wrong)} wrong")
    for line in wrong:
        print(line)
    return 1 if wrong or checked == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
